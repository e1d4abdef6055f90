import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from store_samples import MODEL

from configs.errors import ConflictError, NotFoundError, StaleTokenError
from data_contracts.records import Cause, RetrainRequest, utc_now
from store import requests, steps
from store.engine import Store


def cause(kind: str = "drift", **detail: Any) -> Cause:
    return Cause(kind=kind, at=utc_now(), detail=detail)


def opened(store: Store, status: str = "ready") -> RetrainRequest:
    with store.write() as conn:
        return requests.open_or_attach(conn, MODEL, cause(), status=status)[0]


def claimed(store: Store, owner: str = "a", lease_s: float = 60) -> RetrainRequest:
    request = opened(store)
    with store.write() as conn:
        taken = requests.claim(conn, request.id, owner, lease_s)
    assert taken is not None
    return taken


def in_threads(n: int, work: Callable[[int], Any]) -> list[Any]:
    results: list[Any] = [None] * n
    start = threading.Barrier(n)

    def run(k: int) -> None:
        start.wait()
        try:
            results[k] = work(k)
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,)) for k in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_hundred_triggers_at_once_open_one_request(store: Store) -> None:
    def trigger(k: int) -> tuple[str, bool]:
        with store.write() as conn:
            request, created = requests.open_or_attach(conn, MODEL, cause(n=k))
            return request.id, created

    results = in_threads(100, trigger)
    assert [r for r in results if isinstance(r, Exception)] == []
    assert len({ident for ident, _ in results}) == 1
    assert sum(created for _, created in results) == 1
    with store.read() as conn:
        (request,) = requests.list_requests(conn, MODEL)
    assert sorted(c.detail["n"] for c in request.causes) == list(range(100))
    assert (request.number, request.status) == (1, "waiting")


def test_the_same_cause_attaches_once_and_ready_lifts(store: Store) -> None:
    with store.write() as conn:
        first, created = requests.open_or_attach(conn, MODEL, cause(episode=1))
        assert created
        again, created = requests.open_or_attach(conn, MODEL, cause(episode=1))
        assert (again, created) == (first, False)
        lifted, _ = requests.open_or_attach(conn, MODEL, cause("manual"), status="ready")
        assert lifted.status == "ready"
        assert lifted.title == f"retrain {MODEL} #1 - drift+manual"
        assert requests.current(conn, MODEL) == lifted == requests.get(conn, first.id)
        # A later trigger does not push it back.
        assert requests.open_or_attach(conn, MODEL, cause(episode=2))[0].status == "ready"


def test_models_have_requests_of_their_own_and_numbers_count_up(store: Store) -> None:
    with store.write() as conn:
        for number in (1, 2, 3):
            request, created = requests.open_or_attach(conn, MODEL, cause())
            assert (request.number, created) == (number, True)
            requests.cancel(conn, request.id)
        assert requests.open_or_attach(conn, "other", cause())[0].number == 1
        assert [r.number for r in requests.list_requests(conn, MODEL, limit=2)] == [3, 2]
        assert requests.current(conn, MODEL) is None


def test_of_many_claimers_one_wins(store: Store) -> None:
    request = opened(store)

    def claim(k: int) -> RetrainRequest | None:
        with store.write() as conn:
            return requests.claim(conn, request.id, f"worker-{k}", 60)

    results = in_threads(10, claim)
    winners = [r for r in results if r is not None]
    assert len(winners) == 1
    assert (winners[0].attempt, winners[0].token, winners[0].status) == (1, 1, "claimed")


def test_a_waiting_request_is_not_claimed(store: Store) -> None:
    request = opened(store, "waiting")
    with store.write() as conn:
        assert requests.claim(conn, request.id, "a", 60) is None
        assert requests.set_ready(conn, request.id)
        assert not requests.set_ready(conn, request.id)
        assert requests.claim(conn, request.id, "a", 60) is not None


def test_a_stale_worker_is_refused_everywhere(store: Store) -> None:
    old = claimed(store, "a", lease_s=10)
    later = utc_now() + timedelta(seconds=11)
    with store.write() as conn:
        steps.begin(conn, old.id, "train", "d1", old.token)
        assert requests.expired(conn, MODEL) is None
        assert requests.claim(conn, old.id, "b", 60) is None
        assert requests.expired(conn, MODEL, later) is not None
        new = requests.claim(conn, old.id, "b", 60, now=later)
        assert new is not None
        assert (new.owner, new.attempt, new.token) == ("b", 2, 2)
    refused: list[Callable[[Any], object]] = [
        lambda conn: requests.renew(conn, old.id, old.token, 60),
        lambda conn: requests.check_token(conn, old.id, old.token),
        lambda conn: requests.finish(conn, old.id, old.token, "done", "promoted"),
        lambda conn: steps.begin(conn, old.id, "gate", "d2", old.token),
        lambda conn: steps.complete(conn, old.id, "train", old.token, {"adapter": "x"}),
        lambda conn: steps.fail(conn, old.id, "train", old.token, "boom"),
    ]
    for act in refused:
        with pytest.raises(StaleTokenError, match="token 1"), store.write() as conn:
            act(conn)
    with store.write() as conn:
        requests.renew(conn, new.id, new.token, 60)
        requests.finish(conn, new.id, new.token, "done", "promoted")
        assert requests.current(conn, MODEL) is None


def test_a_token_checked_in_a_write_stays_valid_to_its_end(store: Store) -> None:
    """The takeover waits for the transaction that checked the token, so no stale write slips in between."""
    request = claimed(store, lease_s=-1)
    order: list[str] = []
    began = threading.Event()

    def take_over() -> None:
        began.wait()
        with store.write() as conn:
            requests.claim(conn, request.id, "b", 60)
            order.append("taken over")

    thread = threading.Thread(target=take_over)
    thread.start()
    with store.write() as conn:
        requests.check_token(conn, request.id, request.token)
        began.set()
        thread.join(0.3)
        order.append("written")
    thread.join()
    assert order == ["written", "taken over"]


def test_finish_twice_is_one_and_other_words_are_refused(store: Store) -> None:
    request = claimed(store)
    with store.write() as conn:
        requests.finish(conn, request.id, request.token, "done", "blocked", "two anchors lost")
        requests.finish(conn, request.id, request.token, "done", "blocked")
        done = requests.get(conn, request.id)
    assert done is not None
    assert (done.status, done.outcome, done.detail, done.lease_until) == ("done", "blocked", "two anchors lost", None)
    with pytest.raises(StaleTokenError), store.write() as conn:
        requests.finish(conn, request.id, request.token, "failed", "error")
    with store.write() as conn:
        assert requests.open_or_attach(conn, MODEL, cause())[1]


def test_cancel_makes_the_worker_stale(store: Store) -> None:
    request = claimed(store)
    with store.write() as conn:
        assert requests.cancel(conn, request.id).status == "cancelled"
    with pytest.raises(StaleTokenError, match="cancelled"), store.write() as conn:
        requests.renew(conn, request.id, request.token, 60)
    with pytest.raises(ConflictError), store.write() as conn:
        requests.cancel(conn, request.id)
    with pytest.raises(NotFoundError), store.write() as conn:
        requests.cancel(conn, "nobody")
    with pytest.raises(NotFoundError), store.write() as conn:
        requests.check_token(conn, "nobody", 1)


def test_a_done_step_is_not_done_again_unless_its_input_changed(store: Store) -> None:
    request = claimed(store)
    with store.write() as conn:
        begun = steps.begin(conn, request.id, "train", "d1", request.token)
        assert begun.status == "running"
        done = steps.complete(conn, request.id, "train", request.token, {"adapter": "x", "loss": 0.5})
        assert done.output == {"adapter": "x", "loss": 0.5}
        assert done.ended_at is not None
        assert steps.begin(conn, request.id, "train", "d1", request.token) == done
        assert steps.complete(conn, request.id, "train", request.token, {"loss": 0.5, "adapter": "x"}) == done
        with pytest.raises(ConflictError):
            steps.complete(conn, request.id, "train", request.token, {"adapter": "y"})
        again = steps.begin(conn, request.id, "train", "d2", request.token)
        assert (again.status, again.output, again.ended_at) == ("running", None, None)


def test_a_new_worker_keeps_what_is_done_and_redoes_the_rest(store: Store) -> None:
    old = claimed(store, lease_s=-1)
    with store.write() as conn:
        steps.begin(conn, old.id, "curate", "d1", old.token)
        done = steps.complete(conn, old.id, "curate", old.token, {"rows": 3})
        steps.begin(conn, old.id, "train", "d2", old.token)
        steps.fail(conn, old.id, "train", old.token, "no memory")
        steps.begin(conn, old.id, "gate", "d3", old.token)
        new = requests.claim(conn, old.id, "b", 60)
        assert new is not None
        assert steps.begin(conn, new.id, "curate", "d1", new.token) == done
        restarted = steps.begin(conn, new.id, "train", "d2", new.token)
        assert (restarted.status, restarted.error, restarted.token) == ("running", "", 2)
        assert [s.name for s in steps.list_steps(conn, new.id)] == ["curate", "gate", "train"]
        with pytest.raises(ConflictError, match="token 1"):
            steps.complete(conn, new.id, "gate", new.token, {})
        with pytest.raises(NotFoundError):
            steps.complete(conn, new.id, "register", new.token, {})
