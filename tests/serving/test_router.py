"""How a gateway follows the pointer: load first, switch at once, finish what runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from serving_helpers import MODEL, Running, config_for, fake_arm, register, running, wait_for

import store.gateways
import store.pointer
from configs.errors import UnavailableError
from configs.schema import ServingSection
from data_contracts.records import AdapterRef, Arm, RoutePointer
from monitoring.rollout_actions import begin, promote, rollback, start_rollout
from serving.engines.echo import EchoEngine
from serving.router import Router
from store.engine import Store


class SlowEngine(EchoEngine):
    """Loads only when `gate` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def load(self, ref: AdapterRef) -> None:
        assert self.gate.wait(10)
        super().load(ref)


def put(opened: Store, pointer: RoutePointer) -> RoutePointer:
    with opened.write() as conn:
        return store.pointer.compare_and_set(conn, pointer, expected_revision=pointer.revision, reason="test")


def routed(router: Router, principal: str = "ann") -> str:
    with router.route(principal) as route:
        return route.version


@pytest.fixture
def slow(sqlite_store: Store) -> Iterator[tuple[Router, SlowEngine]]:
    engine = SlowEngine()
    router = Router(engine, sqlite_store, MODEL, ServingSection(pointer_poll_s=0.02))
    yield router, engine
    engine.gate.set()
    router.close()


def test_the_switch_waits_for_the_adapter(sqlite_store: Store, slow: tuple[Router, SlowEngine]) -> None:
    router, engine = slow
    with pytest.raises(UnavailableError):
        routed(router)
    router.start()
    wait_for(lambda: router.pointer is not None)
    put(sqlite_store, RoutePointer(model=MODEL, revision=0, champion=fake_arm(1)))
    time.sleep(0.2)
    assert routed(router) == "base"
    engine.gate.set()
    wait_for(lambda: routed(router) == f"{MODEL}@v1")


def test_a_canary_taken_back_is_dropped_while_the_champion_still_loads(
    sqlite_store: Store, slow: tuple[Router, SlowEngine]
) -> None:
    router, engine = slow
    engine._loaded.add(f"{MODEL}@v1")
    at_half = RoutePointer(
        model=MODEL, revision=0, champion=Arm(), canary=fake_arm(1), canary_share=1.0, salt="s", rollout_id="r"
    )
    put(sqlite_store, at_half)
    router.start()
    wait_for(lambda: router.pointer is not None and routed(router) == f"{MODEL}@v1")
    put(sqlite_store, RoutePointer(model=MODEL, revision=1, champion=fake_arm(2)))
    wait_for(lambda: routed(router) == "base", 1)
    engine.gate.set()
    wait_for(lambda: routed(router) == f"{MODEL}@v2")


def test_adapters_beyond_the_limit_go_but_never_one_in_use(sqlite_store: Store) -> None:
    engine = EchoEngine()
    router = Router(engine, sqlite_store, MODEL, ServingSection(max_adapters=2, pointer_poll_s=0.02))
    for number in range(1, 5):
        register(sqlite_store, fake_arm(number))
    router.ensure(f"{MODEL}@v1")
    with router.pinned(f"{MODEL}@v1"):
        for number in (2, 3, 4):
            router.ensure(f"{MODEL}@v{number}")
        router.poll()
        wait_for(lambda: engine.loaded() == {"base", f"{MODEL}@v1", f"{MODEL}@v4"})
    router.close()


def test_a_store_that_is_away_does_not_stop_the_gateway(sqlite_store: Store) -> None:
    router = Router(EchoEngine(), sqlite_store, MODEL, ServingSection(pointer_poll_s=0.02))
    router.start()
    wait_for(lambda: router.pointer is not None)
    read = sqlite_store.read
    sqlite_store.read = None  # type: ignore[assignment,method-assign]
    time.sleep(0.1)
    assert routed(router) == "base"
    sqlite_store.read = read  # type: ignore[method-assign]
    put(sqlite_store, RoutePointer(model=MODEL, revision=0, champion=fake_arm(1)))
    wait_for(lambda: routed(router) == f"{MODEL}@v1")
    router.close()


def test_an_adapter_that_does_not_load_is_reported_in_the_heartbeat(sqlite_store: Store) -> None:
    version = f"{MODEL}@v1"
    engine = EchoEngine(broken=frozenset({version}))
    router = Router(engine, sqlite_store, MODEL, ServingSection(pointer_poll_s=0.02))
    register(sqlite_store, fake_arm(1))
    start_rollout(sqlite_store, MODEL, fake_arm(1), cause="test")
    router.start()

    def reported() -> bool:
        with sqlite_store.read() as conn:
            return any(g.error.startswith(f"{version}: ") for g in store.gateways.live(conn, MODEL))

    wait_for(reported)
    assert routed(router) == "base"
    router.close()
    with sqlite_store.read() as conn:
        assert store.gateways.live(conn, MODEL) == []


def test_a_rollback_reaches_the_gateway_within_two_seconds_and_no_request_fails(tmp_path: Path) -> None:
    engine = EchoEngine(delay_s=0.03)
    with running(config_for(tmp_path, serving={"pointer_poll_s": 0.5}), engine) as up:
        register(up.store, fake_arm(1))
        rollout = start_rollout(up.store, MODEL, fake_arm(1), cause="test")
        wait_for(lambda: f"{MODEL}@v1" in engine.loaded())
        with up.store.write() as conn:
            begin(conn, rollout, share=0.5, latency_limit_ms=1000, actor="test")
        wait_for(lambda: httpx.get(f"{up.url}/health").json()["canary"] == f"{MODEL}@v1")
        arms = _sticky_arms(up)
        assert set(arms.values()) == {"champion", "canary"}
        on_canary = next(name for name, arm in arms.items() if arm == "canary")

        stop, answers = threading.Event(), []

        def keep_asking(name: str) -> None:
            with httpx.Client() as client:
                while not stop.is_set():
                    answers.append((time.monotonic(), name, up.ask("one two three four", client, user=name)))

        with ThreadPoolExecutor(5) as pool:
            for name in [on_canary, *list(arms)[:3]]:
                pool.submit(keep_asking, name)
            time.sleep(0.5)
            long = pool.submit(up.ask, "word " * 60, user=on_canary, max_tokens=100)
            time.sleep(0.2)
            at = time.monotonic()
            rollback(up.store, MODEL, "tester", "bad")
            wait_for(lambda: up.ask("x", user=on_canary).headers["x-tidemill-arm"] == "champion", 2)
            reached = time.monotonic() - at
            stop.set()
        assert reached < 2.0
        assert long.result().headers["x-tidemill-version"] == f"{MODEL}@v1"
        assert long.result().json()["choices"][0]["message"]["content"].startswith(f"{MODEL}@v1: word")
        assert {r.status_code for _, _, r in answers} == {200}
        late = [r for started, _, r in answers if started > at + 2.5]
        assert all(r.headers["x-tidemill-arm"] == "champion" for r in late)


def _sticky_arms(up: Running) -> dict[str, str]:
    first = {f"user-{i}": up.ask("x", user=f"user-{i}").headers["x-tidemill-arm"] for i in range(12)}
    second = {name: up.ask("y", user=name).headers["x-tidemill-arm"] for name in first}
    assert first == second
    return first


def test_a_promotion_switches_everybody(tmp_path: Path) -> None:
    with running(config_for(tmp_path), EchoEngine()) as up:
        register(up.store, fake_arm(1))
        start_rollout(up.store, MODEL, fake_arm(1), cause="test")
        promote(up.store, MODEL, "tester", "good")
        wait_for(lambda: up.ask("x").headers["x-tidemill-version"] == f"{MODEL}@v1")
        rollback(up.store, MODEL, "tester", "not so good")
        wait_for(lambda: up.ask("x").headers["x-tidemill-version"] == "base")
