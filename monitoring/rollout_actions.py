"""What may happen to a rollout: start, begin, ramp, promote, roll back, abort, expire.

Each action changes the serving pointer (compare-and-set), the rollout, the audit log and the outbox of registry
aliases in one transaction. The functions that take a `Store` are for people and flows; those that take a
`Connection` are for the controller, which folds evidence and acts in the same transaction.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection

import store.audit
import store.erasure
import store.interactions
import store.outbox
import store.pointer
import store.rollouts
import store.versions
from configs.errors import AdapterRejectedError, NotFoundError
from data_contracts.ids import new_id
from data_contracts.records import BASE_VERSION, Arm, Rollout, RolloutState, RoutePointer, utc_now
from store.engine import Store

GATE = "gate"


def version_number(name: str) -> int | None:
    """3 for `support-bot@v3`; None for the base or a foreign name."""
    _, at, number = name.rpartition("@v")
    return int(number) if at and number.isdigit() else None


def start_rollout(
    store_: Store,
    model: str,
    candidate: Arm,
    *,
    cause: str,
    request_id: str | None = None,
    approved_by: str = GATE,
) -> Rollout:
    """Open a rollout for a registered candidate; the controller begins it once every gateway has loaded it.

    A repeat for the same retrain request returns the rollout that is there, whatever its state.

    Raises:
        AdapterRejectedError: the candidate is no registered version, or its digest is not the registered one.
        ConflictError: another rollout of the model is open.
    """
    with store_.write() as conn:
        if request_id is not None:
            existing = store.rollouts.by_request(conn, request_id)
            if existing is not None:
                return existing
        _check_registered(conn, candidate)
        check_untainted(conn, candidate)
        pointer = store.pointer.get(conn, model)
        rollout = Rollout(
            id=new_id(),
            model=model,
            candidate=candidate,
            previous=pointer.champion,
            state="pending",
            created_at=utc_now(),
            request_id=request_id,
            cause=cause,
            salt=secrets.token_hex(16),
            approved_by=approved_by,
        )
        store.rollouts.create(conn, rollout)
        _audit(conn, approved_by, "rollout.opened", rollout, {"cause": cause, "request_id": request_id})
    return rollout


def promote(store_: Store, model: str, actor: str, reason: str) -> Rollout:
    """Make the open rollout's candidate the champion now, on a person's word.

    Raises:
        NotFoundError: no rollout is open.
    """
    with store_.write() as conn:
        return finish(conn, _open(conn, model), "promoted", actor=actor, reason=reason)


def rollback(store_: Store, model: str, actor: str, reason: str) -> Rollout:
    """Take the open rollout's canary back; with none open, put back what the last promotion replaced.

    Raises:
        NotFoundError: no rollout is open and the champion was not put there by a rollout.
    """
    with store_.write() as conn:
        rollout = store.rollouts.current(conn, model)
        if rollout is not None:
            return finish(conn, rollout, "rolled_back", actor=actor, reason=reason)
        return _undo_promotion(conn, model, actor=actor, reason=reason)


def abort(store_: Store, model: str, actor: str, reason: str) -> Rollout:
    """Close the open rollout without a verdict; everybody goes back to the champion.

    Raises:
        NotFoundError: no rollout is open.
    """
    with store_.write() as conn:
        return finish(conn, _open(conn, model), "aborted", actor=actor, reason=reason)


def begin(conn: Connection, rollout: Rollout, *, share: float, latency_limit_ms: int, actor: str) -> Rollout:
    """Pending -> running: the canary gets its first share; the champion's latency limit is frozen."""
    check_untainted(conn, rollout.candidate)
    pointer = store.pointer.get(conn, rollout.model)
    now = utc_now()
    running = rollout.model_copy(
        update={
            "state": "running",
            "stage": 0,
            "started_at": now,
            "stage_started_at": now,
            "latency_limit_ms": latency_limit_ms,
            "previous": pointer.champion,
        }
    )
    _set_pointer(
        conn,
        pointer.model_copy(
            update={
                "canary": rollout.candidate,
                "canary_share": share,
                "salt": rollout.salt,
                "rollout_id": rollout.id,
            }
        ),
        pointer.revision,
        f"rollout begins at {share:.0%}",
    )
    store.rollouts.update(conn, running)
    _audit(conn, actor, "rollout.begun", running, {"share": share, "latency_limit_ms": latency_limit_ms})
    return running


def ramp(conn: Connection, rollout: Rollout, *, stage: int, share: float, actor: str, reason: str) -> Rollout:
    """Give the canary the share of the next stage."""
    pointer = store.pointer.get(conn, rollout.model)
    ramped = rollout.model_copy(update={"stage": stage, "stage_started_at": utc_now()})
    _set_pointer(
        conn, pointer.model_copy(update={"canary_share": share}), pointer.revision, f"ramp to {share:.0%}: {reason}"
    )
    store.rollouts.update(conn, ramped)
    _audit(conn, actor, "rollout.ramped", ramped, {"stage": stage, "share": share, "reason": reason})
    return ramped


def finish(conn: Connection, rollout: Rollout, state: RolloutState, *, actor: str, reason: str) -> Rollout:
    """Close a rollout: `promoted` makes the candidate champion, every other end leaves the champion alone."""
    if state == "promoted":
        check_untainted(conn, rollout.candidate)
    ended = rollout.model_copy(update={"state": state, "ended_at": utc_now(), "reason": reason})
    pointer = store.pointer.get(conn, rollout.model)
    calm = {"canary": None, "canary_share": 0.0, "rollout_id": None}
    if state == "promoted":
        after = _set_pointer(
            conn,
            pointer.model_copy(update={**calm, "champion": rollout.candidate}),
            pointer.revision,
            f"promoted {rollout.candidate.version}: {reason}",
        )
        _alias(conn, rollout.model, "champion", rollout.candidate, after.revision)
        _alias(conn, rollout.model, "previous", rollout.previous, after.revision)
    elif pointer.canary is not None or pointer.rollout_id is not None:
        _set_pointer(conn, pointer.model_copy(update=calm), pointer.revision, f"{state}: {reason}")
    store.rollouts.update(conn, ended)
    _audit(conn, actor, f"rollout.{state}", ended, {"reason": reason, "from_state": rollout.state})
    return ended


def _undo_promotion(conn: Connection, model: str, *, actor: str, reason: str) -> Rollout:
    pointer = store.pointer.get(conn, model)
    promoted = [
        r
        for r in store.rollouts.list_rollouts(conn, model)
        if r.state == "promoted" and r.candidate.version == pointer.champion.version
    ]
    if not promoted:
        raise NotFoundError(
            "nothing to roll back",
            where=model,
            expected="an open rollout, or a champion that a rollout promoted",
            found=f"champion {pointer.champion.version}",
        )
    last = max(promoted, key=lambda r: r.ended_at or r.created_at)
    if store.erasure.taint_of(conn, last.previous.version) is not None:
        last = last.model_copy(update={"previous": best_untainted(conn, model, but=pointer.champion.version)})
    after = _set_pointer(
        conn,
        pointer.model_copy(update={"champion": last.previous, "canary": None, "canary_share": 0.0, "rollout_id": None}),
        pointer.revision,
        f"rolled back to {last.previous.version}: {reason}",
    )
    # A closed rollout stays as it was: taking its promotion back is a record of its own.
    now = utc_now()
    undone = Rollout(
        id=new_id(),
        model=model,
        candidate=last.candidate,
        previous=last.previous,
        state="rolled_back",
        created_at=now,
        ended_at=now,
        cause=f"promotion of rollout {last.id} taken back",
        salt=last.salt,
        approved_by=last.approved_by,
        reason=reason,
    )
    store.rollouts.create(conn, undone)
    _alias(conn, model, "champion", last.previous, after.revision)
    _alias(conn, model, "previous", last.candidate, after.revision)
    _audit(conn, actor, "rollout.rolled_back", undone, {"reason": reason, "undoes": last.id})
    return undone


def best_untainted(conn: Connection, model: str, *, but: str) -> Arm:
    """The arm to go back to: the version promoted last that no erasure has tainted, else the base.

    Args:
        conn: any connection.
        model: the product model.
        but: a version that is not wanted, though it may be untainted.
    """
    promoted = [r for r in store.rollouts.list_rollouts(conn, model, limit=1000) if r.state == "promoted"]
    promoted.sort(key=lambda r: r.ended_at or r.created_at, reverse=True)
    bad = {r.candidate.version for r in store.rollouts.list_rollouts(conn, model, limit=1000) if _taken_back(r)}
    marked = store.erasure.tainted_among(conn, [r.candidate.version for r in promoted])
    for rollout in promoted:
        if rollout.candidate.version not in marked | bad | {but}:
            return rollout.candidate
    return Arm()


def _taken_back(rollout: Rollout) -> bool:
    return rollout.state == "rolled_back"


def check_untainted(conn: Connection, candidate: Arm) -> None:
    """Refuse a version that was taught by rows erased since.

    Raises:
        AdapterRejectedError: it is tainted.
    """
    taint = store.erasure.taint_of(conn, candidate.version)
    if taint is not None:
        raise AdapterRejectedError(
            "this version was taught by rows that were erased",
            where=candidate.version,
            expected="a version no erasure has tainted",
            found=f"tainted, to be out of service by {taint.deadline.isoformat(timespec='seconds')}",
            fix="wait for the retrain the erasure asked for",
        )


def _open(conn: Connection, model: str) -> Rollout:
    rollout = store.rollouts.current(conn, model)
    if rollout is None:
        raise NotFoundError("no rollout is open", where=model, fix="see `tidemill rollout show`")
    return rollout


def _check_registered(conn: Connection, candidate: Arm) -> None:
    """Nothing is served that was not registered, by the gate or by a recorded approval."""
    if candidate.adapter is None:
        if candidate.version != BASE_VERSION:
            raise AdapterRejectedError("a version without an adapter", where=candidate.version, expected=BASE_VERSION)
        return
    registered = store.versions.adapter_ref(conn, candidate.version)
    if registered is None:
        raise AdapterRejectedError(
            "this version is not registered",
            where=candidate.version,
            fix="register it first: the gate or a named approval decides what may be served",
        )
    if registered.digest != candidate.adapter.digest:
        raise AdapterRejectedError(
            "the adapter is not the registered one",
            where=candidate.version,
            expected=registered.digest,
            found=candidate.adapter.digest,
        )


def set_champion(conn: Connection, model: str, arm: Arm, *, reason: str) -> RoutePointer:
    """Put another champion in place outside a rollout; `previous` is taken away, for it is no target any more."""
    pointer = store.pointer.get(conn, model)
    after = _set_pointer(conn, pointer.model_copy(update={"champion": arm}), pointer.revision, reason)
    _alias(conn, model, "champion", arm, after.revision)
    _alias(conn, model, "previous", Arm(), after.revision)
    return after


def _set_pointer(conn: Connection, pointer: RoutePointer, expected: int, reason: str) -> RoutePointer:
    return store.pointer.compare_and_set(conn, pointer, expected_revision=expected, reason=reason)


def _alias(conn: Connection, model: str, alias: str, arm: Arm, revision: int) -> None:
    """Tell the registry by outbox; the base has no number there, so its alias is removed (version null)."""
    payload = {"model": model, "alias": alias, "version": version_number(arm.version)}
    store.outbox.add(conn, "alias", f"alias:{model}:{alias}:{revision}", payload)


def _audit(conn: Connection, actor: str, action: str, rollout: Rollout, detail: dict[str, object]) -> None:
    subject = f"{rollout.candidate.version} {rollout.id}"
    store.audit.append(conn, actor, action, subject, {"rollout": rollout.id, **detail})
