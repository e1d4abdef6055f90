"""The ledger: a proved step is never done again, a stale worker is refused."""

from __future__ import annotations

import threading
import time

import pytest

from configs.errors import StaleTokenError
from data_contracts.records import Cause, utc_now
from flows.ledger import Ledger
from store import requests, steps
from store.engine import Store

MODEL = "support-bot"


def ready_request(store: Store) -> str:
    with store.write() as conn:
        request, _ = requests.open_or_attach(conn, MODEL, Cause(kind="manual", at=utc_now()))
        requests.set_ready(conn, request.id)
    return request.id


def expire(store: Store, ledger: Ledger) -> None:
    with store.write() as conn:
        requests.renew(conn, ledger.request.id, ledger.request.token, 0.0)
    time.sleep(0.01)


def test_a_proved_step_is_not_done_again_by_the_next_attempt(sqlite_store: Store) -> None:
    request_id = ready_request(sqlite_store)
    first = Ledger.claim(sqlite_store, request_id, 60)
    assert first is not None
    done: list[str] = []
    assert first.step("ingest", {"a": 1}, lambda: done.append("first") or {"rows": 3}) == {"rows": 3}
    expire(sqlite_store, first)
    second = Ledger.claim(sqlite_store, request_id, 60)
    assert second is not None
    assert second.request.attempt == 2
    assert second.step("ingest", {"a": 1}, lambda: done.append("second") or {"rows": 4}) == {"rows": 3}
    assert done == ["first"]
    assert (second.skipped, second.redone) == (["ingest"], [])


def test_a_step_with_other_inputs_is_done_again(sqlite_store: Store) -> None:
    ledger = Ledger.claim(sqlite_store, ready_request(sqlite_store), 60)
    assert ledger is not None
    ledger.step("train", {"data": "a"}, lambda: {"adapter": "a"})
    assert ledger.step("train", {"data": "b"}, lambda: {"adapter": "b"}) == {"adapter": "b"}


def test_a_stale_worker_cannot_complete_its_step(sqlite_store: Store) -> None:
    request_id = ready_request(sqlite_store)
    slow = Ledger.claim(sqlite_store, request_id, 60)
    assert slow is not None

    def taken_over() -> dict[str, int]:
        expire(sqlite_store, slow)
        assert Ledger.claim(sqlite_store, request_id, 60) is not None
        return {"rows": 1}

    with pytest.raises(StaleTokenError):
        slow.step("ingest", {}, taken_over)
    with sqlite_store.read() as conn:
        assert [s.status for s in steps.list_steps(conn, request_id)] == ["running"]


def test_a_lease_is_renewed_while_the_work_goes_on_and_its_loss_is_noticed(sqlite_store: Store) -> None:
    request_id = ready_request(sqlite_store)
    ledger = Ledger.claim(sqlite_store, request_id, 0.4)
    assert ledger is not None
    with ledger:
        time.sleep(1.0)
        assert Ledger.claim(sqlite_store, request_id, 60) is None
        with sqlite_store.write() as conn:
            requests.cancel(conn, request_id)
        time.sleep(0.5)
        with pytest.raises(StaleTokenError):
            ledger.check()


def test_of_many_claimers_one_wins(sqlite_store: Store) -> None:
    request_id = ready_request(sqlite_store)
    won: list[Ledger] = []

    def claim() -> None:
        ledger = Ledger.claim(sqlite_store, request_id, 60)
        if ledger is not None:
            won.append(ledger)

    threads = [threading.Thread(target=claim) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_a_failed_step_says_why_and_is_done_again(sqlite_store: Store) -> None:
    ledger = Ledger.claim(sqlite_store, ready_request(sqlite_store), 60)
    assert ledger is not None

    def broken() -> dict[str, int]:
        raise ValueError("no room on disk")

    with pytest.raises(ValueError, match="no room"):
        ledger.step("train", {}, broken)
    with sqlite_store.read() as conn:
        assert "no room" in steps.list_steps(conn, ledger.request.id)[0].error
    assert ledger.step("train", {}, lambda: {"ok": 1}) == {"ok": 1}
