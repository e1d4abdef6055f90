import threading
from datetime import timedelta

import pytest
from store_samples import MODEL, rollout

from configs.errors import ConflictError, NotFoundError
from data_contracts.records import AdapterRef, Arm, utc_now
from store import gateways, leases, pointer, rollouts
from store.engine import Store


def test_a_model_never_routed_serves_the_base(store: Store) -> None:
    with store.read() as conn:
        first = pointer.get(conn, MODEL)
        assert (first.revision, first.champion.version, first.canary) == (0, "base", None)
        assert pointer.revisions(conn, MODEL) == []


def test_the_pointer_changes_by_compare_and_set_and_every_revision_is_kept(store: Store) -> None:
    adapter = AdapterRef(version=f"{MODEL}@v1", digest="d", path="/p", base_digest="b")
    with store.write() as conn:
        first = pointer.get(conn, MODEL)
        second = pointer.compare_and_set(
            conn,
            first.model_copy(update={"canary": Arm(version=adapter.version, adapter=adapter), "canary_share": 0.01}),
            expected_revision=0,
            reason="canary starts",
        )
        assert second.revision == 1
        third = pointer.compare_and_set(
            conn, first.model_copy(update={"champion": second.canary}), expected_revision=1, reason="promoted"
        )
        assert pointer.get(conn, MODEL) == third
    for expected in (0, 1, 3):
        with pytest.raises(ConflictError, match="revision 2"), store.write() as conn:
            pointer.compare_and_set(conn, first, expected_revision=expected, reason="late")
    with store.read() as conn:
        history = pointer.revisions(conn, MODEL)
    assert [(p.revision, why) for p, _, why in history] == [(1, "canary starts"), (2, "promoted")]
    assert history[0][0] == second
    assert history[0][1] <= utc_now()


@pytest.mark.parametrize("revision", [0, 1])
def test_of_many_writers_of_one_revision_one_wins(store: Store, revision: int) -> None:
    with store.write() as conn:
        current = pointer.get(conn, MODEL)
        for n in range(revision):
            current = pointer.compare_and_set(conn, current, expected_revision=n, reason="before")
    outcomes: list[str] = []

    def change(k: int) -> None:
        try:
            with store.write() as conn:
                pointer.compare_and_set(conn, current, expected_revision=revision, reason=f"writer {k}")
            outcomes.append("won")
        except ConflictError:
            outcomes.append("lost")

    threads = [threading.Thread(target=change, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 11 + ["won"]
    with store.read() as conn:
        assert len(pointer.revisions(conn, MODEL)) == revision + 1


def test_gateways_live_by_their_heartbeat(store: Store) -> None:
    with store.write() as conn:
        gateways.heartbeat(conn, "g1", MODEL, 1, ["base"])
        gateways.heartbeat(conn, "g2", MODEL, 2, {"base", f"{MODEL}@v1"}, "no memory for v2")
        gateways.heartbeat(conn, "g3", "other", 2, ["base"])
        gateways.heartbeat(conn, "g1", MODEL, 2, ["base"])
        first, second = gateways.live(conn, MODEL)
        assert (first.id, first.revision, first.loaded, first.error) == ("g1", 2, frozenset({"base"}), "")
        assert (second.loaded, second.error) == (frozenset({"base", f"{MODEL}@v1"}), "no memory for v2")
        assert gateways.live(conn, MODEL, within_s=-1) == []
        gateways.remove(conn, "g2")
        assert [g.id for g in gateways.live(conn, MODEL)] == ["g1"]


def test_one_open_rollout_per_model(store: Store) -> None:
    first = rollout(request_id="q1")
    with store.write() as conn:
        rollouts.create(conn, first)
        with pytest.raises(ConflictError, match=first.id):
            rollouts.create(conn, rollout())
        rollouts.create(conn, rollout(model="other"))
        assert rollouts.current(conn, MODEL) == first == rollouts.get(conn, first.id)
        running = first.model_copy(update={"state": "running", "stage": 1, "started_at": utc_now()})
        rollouts.update(conn, running)
        assert rollouts.current(conn, MODEL) == running
        ended = running.model_copy(update={"state": "rolled_back", "ended_at": utc_now(), "reason": "errors"})
        rollouts.update(conn, ended)
        assert rollouts.current(conn, MODEL) is None
        second = rollout(request_id="q1", created_at=first.created_at + timedelta(seconds=1))
        rollouts.create(conn, second)
        assert rollouts.list_rollouts(conn, MODEL) == [second, ended]
        assert rollouts.by_request(conn, "q1") == second
        assert rollouts.by_request(conn, "q2") is None


def test_a_closed_rollout_is_not_opened_again(store: Store) -> None:
    """A person aborts while the controller decides on what it read before."""
    first = rollout(state="running")
    aborted = first.model_copy(update={"state": "aborted"})
    with store.write() as conn:
        rollouts.create(conn, first)
        rollouts.update(conn, aborted)
        rollouts.update(conn, aborted)
        with pytest.raises(ConflictError, match="aborted"):
            rollouts.update(conn, first.model_copy(update={"stage": 2}))
        with pytest.raises(NotFoundError):
            rollouts.update(conn, rollout())
        assert rollouts.get(conn, first.id) == aborted


def test_a_users_first_bad_event_counts_whichever_arm(store: Store) -> None:
    with store.write() as conn:
        assert rollouts.first_bad(conn, "r", "error", "ann", "champion", 1, 0.1)
        assert not rollouts.first_bad(conn, "r", "error", "ann", "canary", 2, 0.5)
        assert rollouts.first_bad(conn, "r", "slow", "ann", "canary", 2, 0.5)
        assert rollouts.first_bad(conn, "r", "error", "bob", "canary", 3, 0.5)
        assert rollouts.first_bad(conn, "r2", "error", "ann", "canary", 3, 0.5)


def test_evidence_state_goes_forward_only(store: Store) -> None:
    with store.write() as conn:
        assert rollouts.state(conn, "r") == (0, {}, [])
        rollouts.save_state(conn, "r", 5, {"log_e": -0.1, "n": 3}, [[1, 2.5]])
        rollouts.save_state(conn, "r", 5, {"log_e": -0.2, "n": 3}, [])
        rollouts.save_state(conn, "r", 9, {"log_e": 0.1 + 0.2, "n": 4}, [[1, 2.5], [2, 3.0]])
        with pytest.raises(ConflictError):
            rollouts.save_state(conn, "r", 8, {}, [])
        assert rollouts.state(conn, "r") == (9, {"log_e": 0.1 + 0.2, "n": 4}, [[1, 2.5], [2, 3.0]])


def test_a_lease_has_one_holder_and_its_token_grows(store: Store) -> None:
    now = utc_now()

    def at(seconds: float, owner: str) -> int | None:
        with store.write() as conn:
            return leases.acquire(conn, "controller", owner, 10, now=now + timedelta(seconds=seconds))

    assert at(0, "a") == 1
    assert at(5, "b") is None
    assert at(8, "a") == 1  # renewed until 18
    assert at(15, "b") is None
    assert at(19, "b") == 2
    assert at(20, "a") is None
    with store.write() as conn:
        leases.release(conn, "controller", "a")  # not theirs
    assert at(21, "a") is None
    with store.write() as conn:
        leases.release(conn, "controller", "b")
    assert at(22, "a") == 3


def test_of_many_who_want_a_free_lease_one_gets_it(store: Store) -> None:
    got: list[int | None] = []

    def want(k: int) -> None:
        with store.write() as conn:
            got.append(leases.acquire(conn, "l", f"o{k}", 60))

    threads = [threading.Thread(target=want, args=(k,)) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [token for token in got if token is not None] == [1]
    assert len(got) == 12
