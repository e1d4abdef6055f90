"""The embedded stack for real, on the tiny model: corrections become a finished retrain by themselves.

The random tiny model cannot learn, so the gate blocks: what is proved here is that everything happens by itself, once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from cli import stack
from cli.processes import is_alive, spawn, stop_processes, wait_until_ready
from configs.errors import StackError
from configs.loader import load_config
from configs.paths import StateDir
from data_contracts.records import Cause, RetrainRequest, utc_now
from flows import triggers
from flows.context import Context, open_context
from store import requests, steps
from tests.flows.flow_samples import add_corrections, tiny_config

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(400)]
T = TypeVar("T")


@dataclass
class Running:
    """A started stack."""

    info: stack.StackInfo
    context: Context

    def prefect(self, route: str, body: dict[str, Any]) -> Any:
        """POST to Prefect's API."""
        return httpx.post(f"{self.info.prefect_api_url}{route}", json=body, timeout=20).raise_for_status().json()

    def child(self, name: str) -> Any:
        """A process of the stack by name."""
        known = stack.read_stack(self.context.state)
        assert known is not None
        return next(c for c in known[1] if c.name == name)


def until(look: Callable[[], T | None], limit_s: float = 120, what: str = "it") -> T:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.3)
    pytest.fail(f"{what} did not happen within {limit_s:.0f} s")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    state = tmp_path_factory.mktemp("stack") / "state"
    config = tiny_config(state, stack={"watch_interval_s": 5, "lease_s": 20})
    info = stack.start(config, StateDir.of(config))
    context = open_context(load_config(str(StateDir.of(config).resolved_config)))
    try:
        yield Running(info, context)
    finally:
        known = stack.read_stack(context.state)
        context.store.close()
        stack.stop(context.state)
        assert known is not None
        assert not any(is_alive(child) for child in known[1])


def finished(running: Running, number: int) -> RetrainRequest | None:
    with running.context.store.read() as conn:
        found = [r for r in requests.list_requests(conn, running.context.model) if r.number == number]
    return found[0] if found and found[0].status in ("done", "failed") else None


def test_feedback_becomes_a_finished_retrain_by_itself(running: Running) -> None:
    add_corrections(running.context.store, running.context.model)
    request = until(lambda: finished(running, 1), 150, "the retrain")
    assert (request.status, request.outcome) in {("done", "blocked"), ("done", "inconclusive")}, request.detail
    with running.context.store.read() as conn:
        done = {s.name: s for s in steps.list_steps(conn, request.id)}
    assert {s.status for s in done.values()} == {"done"}
    assert done["train"].output is not None
    runs = running.prefect("/flow_runs/filter", {"flows": {"name": {"any_": ["tidemill-retrain"]}}})
    assert [(r["name"], r["state"]["type"]) for r in runs] == [(request.title, "COMPLETED")]
    kinds = {a["type"] for a in running.prefect("/artifacts/filter", {"flow_runs": {"id": {"any_": [runs[0]["id"]]}}})}
    assert {"progress", "table", "markdown"} <= kinds
    output = done["track"].output
    assert output is not None
    metrics = httpx.get(
        f"{running.info.mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": output["run_id"]}, timeout=20
    ).json()["run"]["data"]["metrics"]
    assert "train_loss" in {m["key"] for m in metrics}


def test_a_request_made_while_prefect_was_down_is_delivered_once(running: Running) -> None:
    until(lambda: finished(running, 1), 150, "the first retrain")
    server = running.child("prefect")
    stop_processes([server])
    with ThreadPoolExecutor(16) as pool:
        list(
            pool.map(
                lambda n: triggers.record(running.context, Cause(kind="manual", at=utc_now(), detail={"n": n})),
                range(100),
            )
        )
    request, reason = triggers.update(running.context)
    assert request is not None
    assert (request.status, reason, len(request.causes)) == ("ready", "", 100)
    assert httpx.get(f"{running.info.gateway_url}/health", timeout=5).is_success, "the gateway does not need Prefect"
    commands = stack._commands(running.context.config, running.context.state, running.context.state.resolved_config)
    command, environment = commands["prefect"]
    again = spawn("prefect", command, environment, Path(server.log))
    try:
        wait_until_ready(again, f"{running.info.prefect_api_url}/health", 60)
        until(lambda: finished(running, 2), 150, "the delivered retrain")
        runs = running.prefect(
            "/flow_runs/filter",
            {"flow_runs": {"name": {"any_": [request.title]}, "state": {"type": {"any_": ["COMPLETED"]}}}},
        )
        assert len(runs) >= 1
        with running.context.store.read() as conn:
            assert [r.attempt for r in requests.list_requests(conn, running.context.model)][:1] == [1]
    finally:
        stop_processes([again])


def test_a_second_stack_on_the_same_state_is_refused(running: Running) -> None:
    with pytest.raises(StackError, match="runs already"):
        stack.start(running.context.config, running.context.state)


def test_a_port_in_use_is_named_with_its_owner(running: Running, tmp_path: Path) -> None:
    port = int(running.info.gateway_url.rpartition(":")[2])
    config = tiny_config(tmp_path / "other", serving={"port": port})
    with pytest.raises(StackError, match=f"gateway is in use.*{port}") as caught:
        stack.start(config, StateDir.of(config))
    assert caught.value.fix is not None
    assert "serving.port" in caught.value.fix


def test_secrets_are_not_readable_by_others(running: Running) -> None:
    assert os.stat(running.context.state.root / "secret.key").st_mode & 0o077 == 0
