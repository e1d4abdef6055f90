"""The rollout controller on committed rows: begins, ramps, promotes, rolls back, survives a restart."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from serving_helpers import MODEL, fake_arm, register

import store.audit
import store.feedback
import store.gateways
import store.interactions
import store.outbox
import store.pointer
import store.rollouts
from configs.errors import AdapterRejectedError, ConflictError, NotFoundError
from configs.schema import RolloutSection
from data_contracts.ids import new_id
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message, Rollout, utc_now
from monitoring.rollout_actions import abort, promote, rollback, start_rollout, version_number
from serving.controller import Controller, _counts
from serving.routing import choose
from serving.views import console_view, rollout_view
from store.engine import Store

SLOS = {"thumbs_down": 0.5, "error": 0.3}
CONFIG = RolloutSection(
    stages=(0.25, 0.5),
    guardrails=SLOS,
    min_stage_requests=10,
    min_stage_s=0,
    feedback_maturity_s=0,
    settle_s=0,
    horizon_s=3600,
)


def heartbeat(opened: Store, *loaded: str, error: str = "") -> None:
    with opened.write() as conn:
        store.gateways.heartbeat(conn, "g1", MODEL, 0, ["base", *loaded], error)


def begun(opened: Store, controller: Controller, number: int = 1) -> Rollout:
    register(opened, fake_arm(number))
    start_rollout(opened, MODEL, fake_arm(number), cause="test")
    heartbeat(opened, f"{MODEL}@v{number}")
    controller.turn()
    return current(opened)


def current(opened: Store) -> Rollout:
    with opened.read() as conn:
        return store.rollouts.list_rollouts(conn, MODEL)[0]


def serve(
    opened: Store, users: range, *, bad: dict[str, float], flags: dict[str, tuple[str, ...]] | None = None
) -> None:
    """One request of each user; `bad` is the share of thumbs down by arm."""
    with opened.read() as conn:
        pointer = store.pointer.get(conn, MODEL)
    served, said = [], []
    for number in users:
        name = f"user-{number}"
        chosen = choose(pointer, name)
        row = Interaction(
            id=f"i-{new_id()}",
            created_at=utc_now(),
            model=MODEL,
            principal=name,
            conversation="c",
            messages=(Message(role="user", content="q"),),
            answer="a",
            arm=chosen.name,
            version=chosen.arm.version,
            rollout_id=pointer.rollout_id,
            route_revision=pointer.revision,
            arm_share=chosen.share,
            latency_ms=50,
            flags=(flags or {}).get(chosen.name, ()),
        )
        served.append(row)
        is_bad = (number * 7919) % 100 < 100 * bad[chosen.name]
        said.append(
            Feedback(
                id=f"f-{new_id()}",
                interaction_id=row.id,
                kind=FeedbackKind.THUMB,
                created_at=utc_now(),
                principal=name,
                thumb=-1 if is_bad else 1,
            )
        )
    with opened.write() as conn:
        store.interactions.insert(conn, served)
    with opened.write() as conn:
        store.feedback.insert(conn, [(MODEL, f) for f in said])


def test_a_rollout_begins_when_every_gateway_has_the_candidate(store: Store) -> None:
    controller = Controller(store, MODEL, CONFIG)
    assert controller.turn() is None
    register(store, fake_arm(1))
    start_rollout(store, MODEL, fake_arm(1), cause="test")
    controller.turn()
    assert current(store).state == "pending"
    heartbeat(store)
    controller.turn()
    assert current(store).state == "pending"
    heartbeat(store, f"{MODEL}@v1")
    controller.turn()
    rollout = current(store)
    assert (rollout.state, rollout.latency_limit_ms) == ("running", CONFIG.default_latency_limit_ms)
    with store.read() as conn:
        pointer = _pointer(conn)
    assert (pointer.canary_share, pointer.salt, pointer.rollout_id) == (0.25, rollout.salt, rollout.id)


def _pointer(conn: Any) -> Any:
    import store.pointer as pointers

    return pointers.get(conn, MODEL)


def test_a_candidate_that_does_not_load_is_rolled_back(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    register(sqlite_store, fake_arm(1))
    start_rollout(sqlite_store, MODEL, fake_arm(1), cause="test")
    heartbeat(sqlite_store, error=f"other@v1: x ; {MODEL}@v1: the digest differs")
    controller.turn()
    assert current(sqlite_store).state == "rolled_back"
    assert "the digest differs" in current(sqlite_store).reason


def test_a_better_canary_ramps_and_is_promoted(store: Store) -> None:
    controller = Controller(store, MODEL, CONFIG)
    begun(store, controller)
    actions = []
    for turn in range(20):
        serve(store, range(turn * 40, turn * 40 + 40), bad={"champion": 0.8, "canary": 0.05})
        decision = controller.turn()
        actions.append(decision.action if decision else None)
        if actions[-1] == "promote":
            break
    assert "ramp" in actions or len(actions) < 3
    assert actions[-1] == "promote"
    assert current(store).state == "promoted"
    with store.read() as conn:
        pointer = _pointer(conn)
        aliases = [row.payload for row in _outbox(conn)]
        assert _audit_actions(conn)[0] == "rollout.promoted"
    assert (pointer.champion.version, pointer.canary, pointer.rollout_id) == (f"{MODEL}@v1", None, None)
    assert aliases == [
        {"model": MODEL, "alias": "champion", "version": 1},
        {"model": MODEL, "alias": "previous", "version": None},
    ]
    assert controller.turn() is None


def _outbox(conn: Any) -> Any:
    import store.outbox as outbox

    return outbox.pending(conn, "alias")


def _audit_actions(conn: Any) -> list[str]:
    import store.audit as audit

    return [entry.action for entry in audit.entries(conn)]


def test_a_worse_canary_is_rolled_back_and_restarts_count_nothing_twice(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    for turn in range(150):  # four users a turn: too few for a verdict in the first one, whatever the salt
        serve(sqlite_store, range(turn * 4, turn * 4 + 4), bad={"champion": 0.05, "canary": 0.9})
        controller.turn()
        before = rollout_view(sqlite_store, MODEL, CONFIG)
        if current(sqlite_store).state != "running":
            break
        # A new leader, after a crash: it folds nothing again.
        controller.close()
        controller = Controller(sqlite_store, MODEL, CONFIG)
        controller.turn()
        assert rollout_view(sqlite_store, MODEL, CONFIG)["evidence"] == before["evidence"]
    rollout = current(sqlite_store)
    assert rollout.state == "rolled_back"
    assert "thumbs_down is worse on the canary" in rollout.reason
    assert before["evidence"]["users"]["canary"] > 0
    with sqlite_store.read() as conn:
        assert _pointer(conn).canary is None
    view = console_view(sqlite_store, MODEL, CONFIG)
    assert len(view["history"]) >= 2
    assert "salt" not in view["rollout"]


def test_errors_alone_roll_back(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    for turn in range(10):
        serve(
            sqlite_store,
            range(turn * 20, turn * 20 + 20),
            bad={"champion": 0.0, "canary": 0.0},
            flags={"canary": ("error",)},
        )
        controller.turn()
    assert current(sqlite_store).state == "rolled_back"
    assert "error is worse" in current(sqlite_store).reason


def test_a_thumb_of_somebody_who_did_not_ask_does_not_count(sqlite_store: Store) -> None:
    asked = {name: Interaction(
        id=f"i-{name}", created_at=utc_now(), model=MODEL, principal=name, conversation="c", answer="a",
        messages=(Message(role="user", content="q"),),
    ) for name in ("ann", "anon:c1")}  # fmt: skip

    def counts(name: str, principal: str, scope: Any = "user") -> bool:
        thumb = Feedback(
            id="f", interaction_id="i", kind=FeedbackKind.THUMB, created_at=utc_now(), principal=principal, scope=scope
        )
        return _counts(thumb, asked[name])

    assert counts("ann", "ann")
    assert counts("ann", "lead", "review")
    assert counts("anon:c1", "anonymous")
    assert not counts("ann", "mallory")
    assert not counts("ann", "anonymous")
    assert not counts("anon:c1", "mallory")


def test_an_invented_thumb_leaves_the_evidence_alone(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    serve(sqlite_store, range(20), bad={"champion": 0.0, "canary": 0.0})
    with sqlite_store.write() as conn:
        rows = store.interactions.since(conn, MODEL, 0)
        lies = [
            Feedback(id=f"lie-{seq}", interaction_id=row.id, kind=FeedbackKind.THUMB, created_at=utc_now(),
                     principal="mallory", thumb=-1)
            for seq, row in rows
        ]  # fmt: skip
        store.feedback.insert(conn, [(MODEL, lie) for lie in lies])
    controller.turn()
    figures = rollout_view(sqlite_store, MODEL, CONFIG)["evidence"]["metrics"]["thumbs_down"]
    assert figures["canary_users_bad"] == figures["canary_bad"] == 0


def test_feedback_before_its_interaction_counts_and_requests_mature(sqlite_store: Store) -> None:
    config = CONFIG.model_copy(update={"feedback_maturity_s": 60.0})
    controller = Controller(sqlite_store, MODEL, config)
    rollout = begun(sqlite_store, controller)
    row = Interaction(
        id="i-late",
        created_at=utc_now(),
        model=MODEL,
        principal="ann",
        conversation="c",
        messages=(Message(role="user", content="q"),),
        answer="a",
        arm="canary",
        version=f"{MODEL}@v1",
        rollout_id=rollout.id,
        arm_share=0.25,
    )
    thumb = Feedback(
        id="f1",
        interaction_id="i-late",
        kind=FeedbackKind.THUMB,
        created_at=utc_now(),
        principal="ann",
        thumb=-1,
    )
    with sqlite_store.write() as conn:
        store.feedback.insert(conn, [(MODEL, thumb)])
    controller.turn()
    with sqlite_store.write() as conn:
        store.interactions.insert(conn, [row])
    controller.turn()
    figures = rollout_view(sqlite_store, MODEL, config)["evidence"]
    assert figures["metrics"]["thumbs_down"]["canary_users_bad"] == 1
    assert figures["matured"]["canary"] == 0
    controller.turn(utc_now() + timedelta(seconds=61))
    figures = rollout_view(sqlite_store, MODEL, config)["evidence"]
    assert figures["matured"]["canary"] == 1
    assert figures["metrics"]["thumbs_down"]["canary_bad"] == 1


def test_the_horizon_ends_a_rollout_without_evidence(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    controller.turn(utc_now() + timedelta(seconds=3601))
    assert current(sqlite_store).state == "expired"


def test_only_one_controller_leads(sqlite_store: Store) -> None:
    first, second = (Controller(sqlite_store, MODEL, CONFIG) for _ in range(2))
    begun(sqlite_store, first)
    assert first.turn() is not None
    assert second.turn() is None
    first.close()
    assert second.turn() is not None


# --- the actions ---------------------------------------------------------------------------------------


def test_a_rollout_starts_once_per_request_and_only_with_a_registered_adapter(sqlite_store: Store) -> None:
    with pytest.raises(AdapterRejectedError):
        start_rollout(sqlite_store, MODEL, fake_arm(1), cause="test")
    arm = register(sqlite_store, fake_arm(1))
    assert arm.adapter is not None
    forged = arm.model_copy(update={"adapter": arm.adapter.model_copy(update={"digest": "0" * 64})})
    with pytest.raises(AdapterRejectedError):
        start_rollout(sqlite_store, MODEL, forged, cause="test")
    first = start_rollout(sqlite_store, MODEL, arm, cause="test", request_id="r1")
    assert start_rollout(sqlite_store, MODEL, arm, cause="test", request_id="r1") == first
    with pytest.raises(ConflictError):
        start_rollout(sqlite_store, MODEL, arm, cause="test", request_id="r2")


def test_promotions_can_be_taken_back_one_by_one(sqlite_store: Store) -> None:
    for number in (1, 2):
        arm = register(sqlite_store, fake_arm(number))
        start_rollout(sqlite_store, MODEL, arm, cause="test", approved_by="ann")
        promote(sqlite_store, MODEL, "ann", "looks good")
    for expected in (f"{MODEL}@v1", "base"):
        undone = rollback(sqlite_store, MODEL, "bob", "complaints")
        assert undone.state == "rolled_back"
        with sqlite_store.read() as conn:
            assert _pointer(conn).champion.version == expected
    with pytest.raises(NotFoundError):
        rollback(sqlite_store, MODEL, "bob", "again")
    with sqlite_store.read() as conn:
        assert store.audit.verify(conn) == 6


def test_an_aborted_rollout_leaves_the_champion(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    assert abort(sqlite_store, MODEL, "ann", "wrong day").state == "aborted"
    with sqlite_store.read() as conn:
        pointer = _pointer(conn)
    assert (pointer.canary, pointer.champion.version) == (None, "base")
    for action in (abort, promote):
        with pytest.raises(NotFoundError):
            action(sqlite_store, MODEL, "ann", "x")


def test_users_of_a_slow_canary_are_not_missing(sqlite_store: Store) -> None:
    """In the order of commits the champion's 60 users come first; by when they began the shares are as they should."""
    controller = Controller(sqlite_store, MODEL, CONFIG.model_copy(update={"settle_s": 30.0}))
    rollout = begun(sqlite_store, controller)
    with sqlite_store.read() as conn:
        pointer = _pointer(conn)
    users = [(f"user-{n}", choose(pointer, f"user-{n}")) for n in range(80)]
    slow = [user for user in users if user[1].name == "canary"]
    assert 10 <= len(slow) <= 30
    assert rollout.started_at is not None
    began = {name: rollout.started_at + timedelta(seconds=0.01 * n) for n, (name, _) in enumerate(users, 1)}
    for at, group in ((2.0, [u for u in users if u not in slow]), (20.0, slow), (40.0, [])):
        rows = [
            Interaction(
                id=f"i-{name}",
                created_at=began[name],
                model=MODEL,
                principal=name,
                conversation="c",
                messages=(Message(role="user", content="q"),),
                answer="a",
                arm=chosen.name,
                version=chosen.arm.version,
                rollout_id=rollout.id,
                arm_share=chosen.share,
            )
            for name, chosen in group
        ]
        with sqlite_store.write() as conn:
            store.interactions.insert(conn, rows)
        controller.turn(rollout.started_at + timedelta(seconds=at))
    with sqlite_store.read() as conn:
        _, state, _ = store.rollouts.state(conn, rollout.id)
    assert current(sqlite_store).state == "running"
    assert sum(state["canary"]["users"].values()) == 80


def test_a_canary_nobody_can_judge_is_taken_back(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG.model_copy(update={"blind_rollback_s": 0.0}))
    rollout = begun(sqlite_store, controller)
    with sqlite_store.write() as conn:
        store.rollouts.save_state(conn, rollout.id, 0, {"canary": "unreadable"}, [])
    controller.look()
    closed = current(sqlite_store)
    assert (closed.state, closed.reason.split(" (")[0]) == (
        "rolled_back",
        "its evidence could not be judged for 0 s",
    )
    with sqlite_store.read() as conn:
        assert _pointer(conn).canary is None


def test_a_fault_that_passes_takes_nothing_back(sqlite_store: Store) -> None:
    controller = Controller(sqlite_store, MODEL, CONFIG)
    rollout = begun(sqlite_store, controller)
    with sqlite_store.read() as conn:
        watermark, state, _ = store.rollouts.state(conn, rollout.id)
    with sqlite_store.write() as conn:
        store.rollouts.save_state(conn, rollout.id, watermark, {"canary": "unreadable"}, [])
    controller.look()
    with sqlite_store.write() as conn:
        store.rollouts.save_state(conn, rollout.id, watermark, state, [])
    controller.look()
    assert current(sqlite_store).state == "running"


def test_version_numbers() -> None:
    assert version_number(f"{MODEL}@v12") == 12
    assert version_number("base") is None
    assert version_number("x@vy") is None


def test_a_tainted_champion_leaves_service_at_its_deadline(sqlite_store: Store) -> None:
    import store.erasure

    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    promote(sqlite_store, MODEL, "mira", "good")
    begun(sqlite_store, controller, 2)
    with sqlite_store.write() as conn:
        store.erasure.taint(conn, [f"{MODEL}@v1"], "e1", utc_now() + timedelta(days=30))
    controller.turn()
    with sqlite_store.read() as conn:
        assert store.pointer.get(conn, MODEL).champion.version == f"{MODEL}@v1"
    running = current(sqlite_store)
    controller.turn(utc_now() + timedelta(days=31))
    with sqlite_store.read() as conn:
        pointer = store.pointer.get(conn, MODEL)
        ended = store.rollouts.get(conn, running.id)
        aliases = {row.payload["alias"]: row.payload["version"] for row in store.outbox.pending(conn, kind="alias")}
    assert pointer.champion.version == "base"
    assert ended is not None
    assert ended.state == "aborted"
    assert aliases == {"champion": None, "previous": None}
    # Its candidate is clean: it begins anew against the base, under a new salt.
    again = current(sqlite_store)
    assert (again.candidate, again.previous.version) == (running.candidate, "base")
    assert (again.state, again.salt != running.salt) in (("pending", True), ("running", True))
    controller.close()


def test_a_tainted_canary_can_neither_begin_nor_be_promoted(sqlite_store: Store) -> None:
    import store.erasure

    controller = Controller(sqlite_store, MODEL, CONFIG)
    begun(sqlite_store, controller)
    with sqlite_store.write() as conn:
        store.erasure.taint(conn, [f"{MODEL}@v1"], "e1", utc_now())
    with pytest.raises(AdapterRejectedError, match="erased"):
        promote(sqlite_store, MODEL, "mira", "good")
    with sqlite_store.read() as conn:
        assert store.pointer.get(conn, MODEL).champion.version == "base"
    controller.close()
