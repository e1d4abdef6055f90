"""When to retrain: facts in the store -> one open request with its causes -> ready -> an event and a run.

Feedback, drift, incidents, the calendar and people all end here. However many triggers come at once there is one open
request a model; the others attach to it as causes. Cooldown, budget and enough new rows hold a request in `waiting`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from data_contracts.records import Cause, LabelledRow, RetrainRequest, utc_now
from flows.context import Context
from flows.curating import curated
from flows.suites import evaluation_prompts
from store import audit, drift, feedback, incidents, outbox, people, quarantine, requests, rollouts, snapshots, steps

BAD_OUTCOMES = ("blocked", "inconclusive", "rolled_back", "expired", "no_data", "error")
DAY = timedelta(days=1)
LATER = ("feedback", "drift", "incident")
"""Causes that hold until a retrain has dealt with them, so that nothing is lost by waiting."""


@dataclass(frozen=True)
class Facts:
    """What the trigger decision is made from."""

    new_rows: int
    """Teachable rows (curated) that no snapshot holds yet."""
    incident_rows: int
    """Paraphrases of open incidents."""
    now: datetime


def teachable_new_rows(context: Context, conn: Connection, now: datetime | None = None) -> int:
    """Rows that would teach and are in no snapshot yet.

    The contract is not run here (that is the flow's work); redaction, corroboration, caps and duplicates are, so that a
    flood of one person's corrections starts nothing.
    """
    now = now or utc_now()
    last = _last_judged(conn, context.model)
    decided = {} if last.at is None else quarantine.decided_since(conn, context.model, last.at)
    new = decided or feedback.count_corrections_since(conn, context.model, last.watermark)
    if not new and not _came_of_age(context, conn, last.at, now):
        return 0
    # A suspect is in the snapshot of the round it made fail; let through since, it is new again.
    known = last.rows - {row_id for row_id, status in decided.items() if status == "released"}
    judged = quarantine.list_rows(conn, context.model)
    refused = {
        row.row_id
        for row in judged
        if row.status == "dropped" or (row.status == "held" and row.reason.startswith("contract."))
    }
    released = {row.row_id for row in judged if row.status == "released"}
    rows: list[LabelledRow] = [r for r in feedback.labelled(conn, context.model) if r.id not in refused]
    result = curated(context, conn, rows, released, evaluation_prompts(context), now)
    return sum(row.row_id not in known for row in result.train)


def _came_of_age(context: Context, conn: Connection, judged: datetime | None, now: datetime) -> bool:
    """Whether somebody who was too young an account for the last retrain is not any more, while rows are held."""
    age = timedelta(days=context.config.curation.trust.min_account_age_days)
    if judged is None or not age or not quarantine.any_held(conn, context.model):
        return False
    return people.first_came_between(conn, context.model, judged - age, now - age)


@dataclass(frozen=True)
class _Judged:
    """What the last retrain that came to a verdict had read."""

    rows: set[str]
    watermark: int
    at: datetime | None
    """When it began to read; None if there was no retrain."""


def _last_judged(conn: Connection, model: str) -> _Judged:
    """The last retrain that came to a verdict; one that failed proved nothing."""
    for request in requests.list_requests(conn, model, limit=50):
        if request.status != "done":
            continue
        done = {s.name: s for s in steps.list_steps(conn, request.id) if s.output}
        outputs = {name: step.output for name, step in done.items()}
        if "ingest" in outputs and "snapshot" in outputs:
            snapshot = (outputs["snapshot"] or {}).get("snapshot") or {}
            # A large snapshot does not list its rows; the store does.
            rows = snapshot.get("row_ids") or snapshots.splits(conn, snapshot.get("digest", ""))
            return _Judged(set(rows), int((outputs["ingest"] or {})["watermark"]), done["ingest"].started_at)
    return _Judged(set(), 0, None)


def gather(context: Context, conn: Connection, now: datetime | None = None) -> Facts:
    """Read the facts."""
    opened = incidents.all(conn, context.model, status="open")
    return Facts(
        new_rows=teachable_new_rows(context, conn, now),
        incident_rows=sum(len(i.paraphrases) for i in opened),
        now=now or utc_now(),
    )


def record(context: Context, cause: Cause, *, ready: bool = False) -> tuple[RetrainRequest, bool]:
    """Open a request for a cause, or attach the cause to the open one; audited.

    A retrain that runs already has read its rows and incidents: a later finding, incident or threshold is left for the
    next look after it has ended.

    Returns:
        The request and whether this call created it.
    """
    with context.store.write() as conn:
        running = requests.current(conn, context.model)
        if running is not None and running.status == "claimed" and cause.kind in LATER:
            return running, False
        request, created = requests.open_or_attach(conn, context.model, cause)
        audit.append(
            conn,
            cause.kind,
            "retrain.requested" if created else "retrain.cause_attached",
            request.id,
            {"cause": cause.kind, "number": request.number},
        )
    if ready:
        make_ready(context, request)
    return request, created


def make_ready(context: Context, request: RetrainRequest) -> bool:
    """waiting -> ready, and the event into the outbox, in one transaction."""
    with context.store.write() as conn:
        if not requests.set_ready(conn, request.id):
            return False
        payload = {"request_id": request.id, "model": request.model, "title": request.title}
        outbox.add(conn, "event", f"ready:{request.id}", payload)
    return True


def _causes_seen(conn: Connection, model: str) -> set[str]:
    """Ids of incidents and drift findings that some request has as a cause.

    One that failed or was cancelled has not dealt with them; the cooldown keeps them from coming back at once.
    """
    seen: set[str] = set()
    for request in requests.list_requests(conn, model, limit=1000):
        if request.status in ("failed", "cancelled"):
            continue
        for cause in request.causes:
            seen.update(str(cause.detail[key]) for key in ("incident_id", "finding_id") if key in cause.detail)
    return seen


def due_causes(context: Context, conn: Connection, facts: Facts) -> list[Cause]:
    """Every cause that holds now and that no request has yet."""
    model = context.model
    seen = _causes_seen(conn, model)
    causes = [
        Cause(kind="incident", at=facts.now, detail={"incident_id": i.id, "title": f"incident: {i.title}"})
        for i in incidents.all(conn, model, status="open")
        if i.id not in seen
    ]
    causes += [
        Cause(
            kind="drift",
            at=facts.now,
            detail={"finding_id": f.id, "test": f.test, "title": f"drift: {f.name}"},
        )
        for f in drift.findings(conn, model)
        if f.id not in seen
    ]
    current = requests.current(conn, model)
    already = current is not None and any(c.kind == "feedback" for c in current.causes)
    if facts.new_rows >= context.config.triggers.min_new_rows and not already:
        title = f"feedback: {facts.new_rows} new rows"
        causes.append(Cause(kind="feedback", at=facts.now, detail={"rows": facts.new_rows, "title": title}))
    return causes


def cooldown_s(context: Context, history: list[RetrainRequest]) -> float:
    """Seconds to wait after the last retrain; doubles (by `backoff_base`) for each bad end in a row.

    Args:
        context: the installation.
        history: closed requests, newest first; cancelled ones neither lengthen nor break a row.
    """
    bad = 0
    for request in history:
        if request.status == "cancelled":
            continue  # a person's word on this one says nothing of the others
        if request.outcome not in BAD_OUTCOMES:
            break
        bad += 1
    settings = context.config.triggers
    return float(settings.cooldown_s * settings.backoff_base**bad)


def _training_seconds(conn: Connection, history: list[RetrainRequest], since: datetime) -> float:
    total = 0.0
    for request in history:
        if request.updated_at < since:
            continue
        for step in steps.list_steps(conn, request.id):
            if step.name == "train" and step.output:
                total += float(step.output["artifact"]["seconds"])
    return total


def why_not_ready(context: Context, conn: Connection, request: RetrainRequest, facts: Facts) -> str:
    """What still holds a waiting request back, as a sentence; empty if nothing does."""
    kinds = {cause.kind for cause in request.causes}
    settings = context.config.triggers
    if rollouts.current(conn, context.model) is not None:
        return "a rollout is open"
    if "erasure" in kinds:
        return ""  # an erasure waits for no cooldown, budget or data
    ended = ("done", "failed", "cancelled")
    history = [r for r in requests.list_requests(conn, context.model, limit=200) if r.status in ended]
    if history and "manual" not in kinds:
        left = cooldown_s(context, history) - (facts.now - history[0].updated_at).total_seconds()
        if left > 0:
            return f"cooldown: {left:.0f} s to go"
    recent = [r for r in history if r.updated_at >= facts.now - DAY]
    retrains = sum(r.status != "cancelled" for r in recent)
    if retrains >= settings.max_retrains_per_day:
        return f"budget: {retrains} retrains in 24 h, {settings.max_retrains_per_day} allowed"
    used = _training_seconds(conn, recent, facts.now - DAY)
    if used >= settings.max_training_s_per_day:
        return f"budget: {used:.0f} s of training in 24 h, {settings.max_training_s_per_day:.0f} allowed"
    if kinds & {"manual", "schedule"}:
        return ""
    needed = settings.min_new_rows if kinds == {"feedback"} else settings.min_rows_any_cause
    have = facts.new_rows + (facts.incident_rows if "incident" in kinds else 0)
    if have < needed:
        return f"data: {have} new rows, {needed} needed"
    return ""


def update(context: Context, now: datetime | None = None) -> tuple[RetrainRequest | None, str]:
    """Record every due cause and move the open request on.

    Returns:
        The open request (or None) and what it waits for (empty if it is ready or claimed).
    """
    with context.store.read() as conn:
        running = requests.current(conn, context.model)
        if running is not None and running.status == "claimed":
            # No cause joins a retrain that runs; curating meanwhile would only slow it down.
            return running, ""
        facts = gather(context, conn, now)
        causes = due_causes(context, conn, facts)
    for cause in causes:
        record(context, cause)
    with context.store.read() as conn:
        request = requests.current(conn, context.model)
        if request is None or request.status != "waiting":
            return request, ""
        reason = why_not_ready(context, conn, request, facts)
    if not reason:
        make_ready(context, request)
        with context.store.read() as conn:
            request = requests.get(conn, request.id)
    return request, reason
