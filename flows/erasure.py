"""Erasing a person: a durable job of idempotent steps. Whoever finds it open (the command, the watch) goes on with it.

    store       one transaction: their rows leave every table, ids become tombstones, versions are tainted, a retrain
                that holds their rows is sent back to its beginning, a new one is asked for
    drift       references that hold their prompts are rebuilt without them
    files       working folders, caches and unregistered adapters of retrains that read their rows
    reports     reports are written anew without the items; their copies with the tracker too (by outbox)
    snapshots   rows become tombstones
    exports     known export files are rewritten
    scrub       the database file's log and free pages
    settle      what was under way when it began and came in later goes too, also into exports; then it is done

After the first transaction nothing here knows the name: a pseudonym, keyed with the installation's secret, finds what
is left of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from configs.errors import ConflictError, InputError
from data_contracts.ids import UNNAMED
from data_contracts.records import utc_now
from flows import erasure_places as places
from flows import triggers
from flows.context import Context
from flows.erasure_rows import begin, pseudonym, take_late
from flows.ledger import owner_name
from flows.observer import Observer
from store import audit, erasure, leases, outbox, people, person, requests, rollouts
from store.erasure import Erasure

Step = Callable[[Context, Erasure], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    """What an erasure came to.

    `state`: `done`, `settling` (all steps done; late rows are looked for once more at `settles_at`), `nothing` (no row
    of theirs) or `planned` (dry run).
    """

    state: str
    erasure: Erasure | None
    counts: dict[str, int]
    versions: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    settles_at: datetime | None = None


def settle_time(context: Context, job: Erasure) -> datetime:
    """When nothing that was under way at the erasure can still come in: the longest request, the longest lease."""
    window = max(context.config.serving.request_timeout_s + 15.0, 4 * context.config.stack.lease_s)
    return job.requested_at + timedelta(seconds=window)


# --- what the command does ---------------------------------------------------------------------------


def plan(context: Context, principal: str) -> Outcome:
    """What an erasure would take, by place; nothing is written."""
    _check_name(principal)
    with context.store.read() as conn:
        theirs = person.find(conn, principal)
        counts = person.counts(conn, principal, theirs)
        where = person.places_of(conn, theirs)
        taught = erasure.taught_by(conn, where["teaching"])
        counts["first_seen"] = people.remembered(conn, pseudonym(context, principal))
    ids = (*theirs.requests, *theirs.rows, *theirs.incidents)
    counts["export_lines"], exported = places.count_exports(context, ids)
    counts.update(places.count(context, where, lambda name: name == principal))
    return Outcome("planned", None, counts, tuple(taught), tuple(exported))


def erase(context: Context, principal: str, *, by: str, reason: str, observer: Observer) -> Outcome:
    """Erase a person, or go on with an erasure of them that did not end.

    Args:
        context: the installation.
        principal: the name under which requests and feedback are stored, exactly.
        by: who takes the responsibility.
        reason: why; may not hold the name, for the audit log keeps it.
        observer: told what happens, without the name.

    Raises:
        InputError: a name that is nobody's, or a reason or `by` that gives the name away.
        ConflictError: another process works on this erasure.
    """
    _check_name(principal)
    for field, value in (("--reason", reason), ("--by", by)):
        if principal.casefold() in value.casefold():
            raise InputError(
                "the audit log keeps this for ever, so it may not hold the name",
                where=field,
                expected="for example a ticket's number",
                fix="say it without the name",
            )
    alias = pseudonym(context, principal)
    with context.store.read() as conn:
        before = erasure.of_person(conn, alias)
    job = next((one for one in before if one.open), None)
    if job is None:
        job = begin(context, principal, alias, by=by, reason=reason)
    if job is None:
        return Outcome("nothing", before[0] if before else None, {})
    observer.log(f"Erasure {job.id} of {job.pseudonym}.")
    return proceed(context, job, observer)


def _check_name(principal: str) -> None:
    if not principal.strip() or principal == UNNAMED:
        raise InputError(
            "this name is nobody's",
            where="principal",
            expected="the `user` a person's requests carry",
            found=principal or "(empty)",
            fix="feedback that names nobody goes with the request it is about",
        )


# --- the steps ---------------------------------------------------------------------------------------


def _clean_drift(context: Context, job: Erasure) -> dict[str, Any]:
    return places.clean_drift(context, lambda name: pseudonym(context, name) == job.pseudonym)


def _ask_for_retrain(context: Context, _job: Erasure) -> dict[str, Any]:
    """Past any cooldown: ready at once, unless a rollout is open (then the watch does it after its end)."""
    with context.store.read() as conn:
        wanted = requests.current(conn, context.model)
        busy = rollouts.current(conn, context.model) is not None
    if wanted is None or busy or not any(c.kind == "erasure" for c in wanted.causes):
        return {"ready": False}
    return {"ready": wanted.status != "waiting" or triggers.make_ready(context, wanted)}


STEPS: tuple[tuple[str, Step], ...] = (
    ("drift", _clean_drift),
    ("files", places.clean_files),
    ("reports", places.clean_reports),
    ("snapshots", places.clean_snapshots),
    ("exports", places.clean_exports),
    ("scrub", places.scrub_database),
    ("retrain", _ask_for_retrain),
)


def proceed(context: Context, job: Erasure, observer: Observer, now: datetime | None = None) -> Outcome:
    """Do every step that is not done, then settle if it is time.

    Raises:
        ConflictError: another process works on it.
    """
    with _held(context, job):
        for name, work in STEPS:
            if name not in job.steps:
                job = _do(context, job, name, work, observer)
        deliver(context, observer)
        at = settle_time(context, job)
        if job.open and (now or utc_now()) >= at:
            if "settle" not in job.steps:
                job = _do(context, job, "settle", _settle, observer)
            if not _undelivered(context, job):
                job = _close(context, job)
    removed = {key: int(n) for key, n in job.steps["store"]["removed"].items() if n}
    return Outcome(
        state="settling" if job.open else "done",
        erasure=job,
        counts=removed,
        versions=tuple(job.places.get("versions", ())),
        exports=tuple({**job.steps["exports"], **job.steps.get("settle", {})}.get("by_hand", ())),
        settles_at=at if job.open else None,
    )


def _do(context: Context, job: Erasure, name: str, work: Step, observer: Observer) -> Erasure:
    observer.log(f"erase {name}: begins")
    facts = work(context, job)
    observer.log(f"erase {name}: {facts}")
    with context.store.write() as conn:
        job = erasure.set_step(conn, job.id, name, facts)
        audit.append(conn, "erasure", f"erasure.{name}", job.id, {"person": job.pseudonym, **_countable(facts)})
    return job


def _countable(facts: dict[str, Any]) -> dict[str, Any]:
    """What the audit log keeps of a step: figures; of lists their lengths (a path may be named after a person)."""
    return {key: len(value) if isinstance(value, (list, tuple)) else value for key, value in facts.items()}


@contextmanager
def _held(context: Context, job: Erasure) -> Iterator[None]:
    """One process at a time; a killed one's lease runs out after `stack.lease_s`."""
    ttl = context.config.stack.lease_s
    name, owner = f"erasure:{job.id}", f"{owner_name()}:{threading.get_ident()}"
    stop = threading.Event()

    def hold() -> bool:
        with context.store.write() as conn:
            return leases.acquire(conn, name, owner, ttl) is not None

    def renew() -> None:
        while not stop.wait(ttl / 4):
            try:
                hold()
            except Exception:  # noqa: S112 - tolerated: a busy database; every step may be done twice
                continue

    patience = time.monotonic() + ttl + 1.0
    while not hold():
        if time.monotonic() > patience:
            raise ConflictError("another process works on this erasure", where=job.id, fix="let it end")
        time.sleep(min(0.2, ttl / 4))
    thread = threading.Thread(target=renew, name="erasure-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=ttl)
        with context.store.write() as conn:
            leases.release(conn, name, owner)


# --- the end ---------------------------------------------------------------------------------------


def _settle(context: Context, job: Erasure) -> dict[str, Any]:
    """What was under way when the erasure began, and files a worker wrote that had read the rows before."""
    job, late, fresh = take_late(context, job)
    again = ("drift", "files", "snapshots", "exports", "scrub")
    cleaned = {name: work(context, job) for name, work in STEPS if name in again}
    deliver(context, None)
    exports = cleaned["exports"]
    return {
        "late_rows": late,
        "late_versions": fresh,
        "files": cleaned["files"]["files"],
        "lines": exports["lines"],
        "by_hand": exports["by_hand"],
    }


def _undelivered(context: Context, job: Erasure) -> bool:
    with context.store.read() as conn:
        waiting = [row for kind in ("tag", "report") for row in outbox.pending(conn, kind=kind, limit=100_000)]
    return any(row.key.endswith(f":{job.id}") for row in waiting)


def _close(context: Context, job: Erasure) -> Erasure:
    with context.store.write() as conn:
        erasure.finish(conn, job.id)
        audit.append(
            conn,
            "erasure",
            "erasure.done",
            job.id,
            {"person": job.pseudonym, "versions": job.places.get("versions", []), "steps": sorted(job.steps)},
        )
        found = erasure.get(conn, job.id)
    return found or job


def deliver(context: Context, observer: Observer | None) -> int:
    """Taint tags and rewritten reports to the registry; one that is down is told by a later watch."""
    with context.store.read() as conn:
        if not any(outbox.pending(conn, kind=kind, limit=1) for kind in ("tag", "report")):
            return 0
    from configs.errors import RegistryError
    from registry_hooks.outbox import deliver_reports, deliver_tags

    try:
        tags = deliver_tags(context.store, context.registry)
        show = partial(places.report_for_tracker, context)
        return tags + deliver_reports(context.store, context.registry, show)
    except RegistryError as error:
        if observer is not None:
            observer.log(f"Tags and reports wait for the registry: {error.message}")
        return 0


# --- what the watch does -----------------------------------------------------------------------------


def go_on(context: Context, observer: Observer, now: datetime | None = None) -> int:
    """Go on with every open erasure; returns how many are open after it. One that fails stays open and stops no other.

    Of a failure only the type is said: its text may quote what it failed on.
    """
    with context.store.read() as conn:
        waiting = erasure.open_jobs(conn)
    left = 0
    for job in waiting:
        try:
            left += proceed(context, job, observer, now).state != "done"
        except ConflictError:
            left += 1  # somebody is at it
        except Exception as error:
            observer.log(f"Erasure {job.id} failed ({type(error).__name__}); it stays open and is tried again.")
            left += 1
    return left
