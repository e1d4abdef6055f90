"""The transactions of an erasure: taking a person's rows out of every table, at its beginning and as it settles.

Locks are taken in the order everybody takes them: commit numbers, open requests and their steps, routing, audit.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from data_contracts.records import Cause, utc_now
from flows.context import Context
from monitoring.rollout_actions import finish
from store import audit, erasure, outbox, people, person, requests, reviews, rollouts
from store.erasure import Erasure
from store.rows import take

T = TypeVar("T")
TRIES = 5
DEADLOCK = "40P01"
KINDS: tuple[erasure.Kind, ...] = ("request", "row", "incident")
TAINT_TAG = "tidemill.tainted"


def pseudonym(context: Context, principal: str) -> str:
    """How this installation names a person where the name may not stand."""
    return context.pseudonym(principal)


def begin(context: Context, principal: str, alias: str, *, by: str, reason: str) -> Erasure | None:
    """The first step, in one transaction; None if there is nothing of this person."""
    return again_if_deadlocked(lambda: _begin(context, principal, alias, by, reason))


def again_if_deadlocked(work: Callable[[], T]) -> T:
    """Run a transaction once more if PostgreSQL ended it to resolve a deadlock (it crosses every table's locks)."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", "") != DEADLOCK:
                raise
    return work()


def _begin(context: Context, principal: str, alias: str, by: str, reason: str) -> Erasure | None:
    deadline = utc_now() + timedelta(days=context.config.retention.erasure_deadline_days)
    with context.store.write() as conn:
        upto = take(conn, "seq", 0) - 1  # and nobody adds rows before this transaction ends
        theirs = person.find(conn, principal)
        if theirs.empty and not people.remembered(conn, alias):
            return None
        where = person.places_of(conn, theirs)
        job = erasure.create(
            conn, pseudonym=alias, by=by, reason=reason, deadline=deadline, upto_seq=upto, places=where
        )
        _take_rows(conn, job, principal, theirs)
        return erasure.get(conn, job.id)


def _take_rows(conn: Connection, job: Erasure, principal: str, theirs: person.Subjects, step: str = "store") -> None:
    """Delete, remember the ids, taint, restart and ask for a retrain. Locks: commits, requests, routing, audit."""
    for model in theirs.models:
        requests.current_locked(conn, model)  # before its steps, as the ledger does
    ids = (theirs.requests, theirs.rows, theirs.incidents)
    for kind, some in zip(KINDS, ids, strict=True):
        erasure.remember(conn, job.id, some, kind)
    where = person.places_of(conn, theirs)
    removed = person.remove(conn, principal, theirs)
    removed["review"] = reviews.erase(conn, [ident for some in ids for ident in some], [principal])
    removed["first_seen"] = people.forget(conn, job.pseudonym, upto=job.requested_at)
    person.scrub_errors(conn, where["retrains"])
    taught = erasure.taught_by(conn, where["teaching"])
    fresh = erasure.taint(conn, taught, job.id, job.deadline)
    erasure.add_places(conn, job.id, {**where, "versions": taught})
    models = sorted({*where["models"], *(name.rpartition("@v")[0] for name in taught)})
    restarted = [model for model in models if _retrain(conn, job, model, theirs, taught)]
    for model in models:
        _stop_canary(conn, model)
    for name in fresh:
        outbox.add(conn, "tag", f"tainted:{name}:{job.id}", _tag(name, job))
    for pair in where["runs"]:
        run_id, _, request_id = pair.partition(" ")
        outbox.add(conn, "report", f"report:{run_id}:{job.id}", {"run_id": run_id, "request_id": request_id})
    facts = {"removed": removed, "tainted": taught, "restarted": restarted, "snapshots": where["snapshots"]}
    erasure.set_step(conn, job.id, step, facts)
    audit.append(
        conn,
        job.by[:128],
        "erasure.begun" if step == "store" else f"erasure.{step}",
        job.id,
        {"person": job.pseudonym, "reason": job.reason, "deadline": job.deadline.isoformat(), **facts},
    )


def _tag(version: str, job: Erasure) -> dict[str, str]:
    model, _, number = version.rpartition("@v")
    return {"model": model, "number": number, "key": TAINT_TAG, "value": f"erasure {job.id}"}


def _retrain(conn: Connection, job: Erasure, model: str, theirs: person.Subjects, taught: list[str]) -> bool:
    """Send a running retrain that may hold their rows back; ask for one without them where a version was taught."""
    open_request = requests.current_locked(conn, model)
    holds = theirs.first_teaching_seq is not None or bool(theirs.incidents)
    restarted = False
    if open_request is not None and holds and requests.restart(conn, open_request.id):
        # Begun anew it makes another candidate: the canary it may have had is not that one's.
        rollouts.detach(conn, open_request.id)
        restarted = True
    if any(name.startswith(f"{model}@v") for name in taught):
        detail = {"erasure_id": job.id, "title": "erasure"}
        requests.open_or_attach(conn, model, Cause(kind="erasure", at=utc_now(), detail=detail))
    return restarted


def _stop_canary(conn: Connection, model: str) -> None:
    rollout = rollouts.current(conn, model)
    if rollout is not None and erasure.taint_of(conn, rollout.candidate.version) is not None:
        finish(conn, rollout, "aborted", actor="erasure", reason="the candidate was taught by rows that were erased")


def take_late(context: Context, job: Erasure) -> tuple[Erasure, int, list[str]]:
    """Rows that were under way when the erasure began, and versions a slower worker recorded.

    Returns:
        The job with its places, the number of late rows, the names of late versions.
    """
    return again_if_deadlocked(lambda: _take_late(context, job))


def _take_late(context: Context, job: Erasure) -> tuple[Erasure, int, list[str]]:
    late = 0
    with context.store.write() as conn:
        take(conn, "seq", 0)
        names = person.names_since(conn, job.upto_seq)
        principal = next((name for name in names if pseudonym(context, name) == job.pseudonym), None)
        theirs = person.late_rows(conn, job, principal)
        if not theirs.empty:
            late = sum(map(len, (theirs.requests, theirs.rows, theirs.incidents)))
            _take_rows(conn, job, principal or "", theirs, "late")
        people.forget(conn, job.pseudonym, upto=job.requested_at)
        held = [ident for kind in KINDS for ident in erasure.ids_of(conn, job.id, kind)]
        late += reviews.erase(conn, held, [principal] if principal else [])
        ids = erasure.snapshot_row_ids(conn, job.id)
        where = person.places_of(conn, person.Subjects((), tuple(ids), (), tuple(job.places["models"])))
        taught = erasure.taught_by(conn, where["teaching"])
        fresh = erasure.taint(conn, taught, job.id, job.deadline)
        for name in fresh:
            outbox.add(conn, "tag", f"tainted:{name}:{job.id}", _tag(name, job))
        erasure.add_places(conn, job.id, {**where, "versions": taught})
        found = erasure.get(conn, job.id)
    return found or job, late, fresh
