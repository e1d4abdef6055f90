"""One person's rows in every table: which they are, and taking them out; also where others' findings quote them.

Theirs are: requests they made, feedback they gave, feedback anybody gave on their requests, incidents about their
requests or opened by them, and what quarantine, review and rollouts keep under these ids or their name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, func, or_, select, update

from data_contracts.ids import asked_at
from data_contracts.records import FeedbackKind
from store.erasure import INCIDENT_ROW, Erasure, forget_salts
from store.rows import chunks
from store.tables import (
    drift_findings,
    drift_states,
    erased,
    feedback,
    incidents,
    interactions,
    quarantine,
    requests,
    rollout_evidence,
    snapshot_rows,
    steps,
)

TEACHING = (FeedbackKind.CORRECTION.value, FeedbackKind.PREFERENCE.value, FeedbackKind.THUMB.value)
"""What a retrain may have read; thumbs only where the profile lets them teach, which the store does not know."""
ERASED_TITLE = "erased"
ERASED_ERROR = "taken out by an erasure"


@dataclass(frozen=True)
class Subjects:
    """Ids of one person's rows; `models` whose rows they are, `prompts` what they asked (in memory only)."""

    requests: tuple[str, ...]
    rows: tuple[str, ...]
    incidents: tuple[str, ...]
    models: tuple[str, ...]
    first_teaching_seq: int | None = None
    prompts: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def empty(self) -> bool:
        """True if there is nothing of them."""
        return not (self.requests or self.rows or self.incidents)

    @property
    def held_rows(self) -> list[str]:
        """Ids their rows and incidents may have in quarantine."""
        return [*self.rows, *self.incidents]

    @property
    def snapshot_rows(self) -> list[str]:
        """Their row ids in snapshots."""
        return [*self.rows, *(INCIDENT_ROW + ident for ident in self.incidents)]


def find(conn: Connection, principal: str) -> Subjects:
    """Everything of one person, by exact name."""
    asked = select(interactions.c.id).where(interactions.c.principal == principal)
    said = or_(feedback.c.principal == principal, feedback.c.interaction_id.in_(asked))
    opened = or_(incidents.c.opened_by == principal, incidents.c.interaction_id.in_(asked))
    served = conn.execute(
        select(interactions.c.id, interactions.c.messages, interactions.c.model)
        .where(interactions.c.principal == principal)
        .order_by(interactions.c.seq)
    ).all()
    rows = conn.execute(select(feedback.c.id, feedback.c.model).where(said).order_by(feedback.c.seq)).all()
    found = conn.execute(select(incidents.c.id, incidents.c.model).where(opened).order_by(incidents.c.id)).all()
    teaching = conn.execute(select(func.min(feedback.c.seq)).where(said, feedback.c.kind.in_(TEACHING))).scalar_one()
    return Subjects(
        requests=tuple(row.id for row in served),
        rows=tuple(row.id for row in rows),
        incidents=tuple(row.id for row in found),
        models=tuple(sorted({row.model for row in (*served, *rows, *found)})),
        first_teaching_seq=teaching,
        prompts=frozenset(m["content"] for row in served for m in row.messages if m["role"] == "user"),
    )


def behind(conn: Connection, row_ids: Iterable[str]) -> set[str]:
    """Names of those who gave this feedback or opened these incidents, and of those whose requests they are about."""
    names: set[str] = set()
    for table, said_by in ((feedback, feedback.c.principal), (incidents, incidents.c.opened_by)):
        about = table.outerjoin(interactions, interactions.c.id == table.c.interaction_id)
        for part in chunks(row_ids):
            query = select(said_by, interactions.c.principal).select_from(about).where(table.c.id.in_(part))
            names.update(name for row in conn.execute(query) for name in row if name)
    return names


def counts(conn: Connection, principal: str, theirs: Subjects) -> dict[str, int]:
    """What would go from each table."""
    return {
        "interactions": len(theirs.requests),
        "feedback": len(theirs.rows),
        "incidents": len(theirs.incidents),
        "quarantine": _count(conn, quarantine, quarantine.c.row_id, theirs.held_rows),
        "snapshot_rows": _count(conn, snapshot_rows, snapshot_rows.c.row_id, theirs.snapshot_rows),
        "rollout_evidence": int(
            conn.execute(
                select(func.count()).select_from(rollout_evidence).where(rollout_evidence.c.principal == principal)
            ).scalar_one()
        ),
        "drift_findings": sum(1 for _ in _findings_with(conn, theirs.prompts)),
        "drift_states": sum(1 for _ in _states_of(conn, theirs.models)),
    }


def _count(conn: Connection, table: Table, column: ColumnElement[Any], ids: Iterable[str]) -> int:
    return sum(
        int(conn.execute(select(func.count()).select_from(table).where(column.in_(part))).scalar_one())
        for part in chunks(ids)
    )


def remove(conn: Connection, principal: str, theirs: Subjects) -> dict[str, int]:
    """Take everything out of the tables; what snapshots hold stays listed there by id. Returns rows by table."""
    removed = {
        "feedback": _delete(conn, feedback, feedback.c.id, theirs.rows),
        "interactions": _delete(conn, interactions, interactions.c.id, theirs.requests),
        "incidents": _delete(conn, incidents, incidents.c.id, theirs.incidents),
        "quarantine": _delete(conn, quarantine, quarantine.c.row_id, theirs.held_rows),
        "rollout_evidence": conn.execute(
            delete(rollout_evidence).where(rollout_evidence.c.principal == principal)
        ).rowcount,
        "salts": forget_salts(conn, [INCIDENT_ROW + ident for ident in theirs.incidents]),
        "drift_findings": _scrub_findings(conn, theirs.prompts),
        "drift_states": _restart_monitors(conn, theirs.models),
    }
    retitle_incidents(conn, theirs.incidents, ERASED_TITLE)
    return removed


def _delete(conn: Connection, table: Table, column: ColumnElement[Any], ids: Iterable[str]) -> int:
    return sum(conn.execute(delete(table).where(column.in_(part))).rowcount for part in chunks(ids))


# --- what others' findings show of their prompts -------------------------------------------------------


def _findings_with(conn: Connection, prompts: frozenset[str]) -> Iterable[Any]:
    for row in conn.execute(select(drift_findings)).all():
        if prompts.intersection(row.detail.get("examples", ())):
            yield row


def _scrub_findings(conn: Connection, prompts: frozenset[str]) -> int:
    """Take their prompts out of findings' examples, and words of the name that no other example holds."""
    changed = 0
    for row in _findings_with(conn, prompts):
        kept = [text for text in row.detail["examples"] if text not in prompts]
        words = {word for text in kept for word in text.casefold().replace("?", " ").replace(",", " ").split()}
        terms = [term for term in row.detail.get("terms", ()) if set(term.casefold().split()) <= words]
        kind = row.name.partition(":")[0]
        name = f"{kind}: {', '.join(terms)}" if terms else kind
        detail = {**row.detail, "examples": kept, "terms": terms, "title": name}
        conn.execute(update(drift_findings).where(drift_findings.c.id == row.id).values(name=name, detail=detail))
        _retitle(conn, "finding_id", {row.id: f"drift: {name}"})
        changed += 1
    return changed


def _states_of(conn: Connection, models: Sequence[str]) -> Iterable[Any]:
    query = select(drift_states).where(drift_states.c.model.in_(models))
    return (row for row in conn.execute(query).all() if row.state.get("monitor"))


def _restart_monitors(conn: Connection, models: Sequence[str]) -> int:
    """Forget the monitor's last window: it holds prompts without saying whose. References are files."""
    changed = 0
    for row in _states_of(conn, models):
        state = {**row.state, "monitor": None}
        conn.execute(update(drift_states).where(drift_states.c.model == row.model).values(state=state))
        changed += 1
    return changed


def retitle_incidents(conn: Connection, incident_ids: Sequence[str], word: str) -> None:
    """Put a word in the place of the incidents' titles where causes of retrains quote them."""
    if incident_ids:
        _retitle(conn, "incident_id", dict.fromkeys(incident_ids, f"incident: {word}"))


def _retitle(conn: Connection, key: str, titles: dict[str, str]) -> None:
    """Change the titles of causes that quote an incident or a finding."""
    for row in conn.execute(select(requests.c.id, requests.c.causes)).all():
        causes = [
            {**c, "detail": {**c["detail"], "title": titles[c["detail"][key]]}}
            if c.get("detail", {}).get(key) in titles
            else c
            for c in row.causes
        ]
        if causes != row.causes:
            conn.execute(update(requests).where(requests.c.id == row.id).values(causes=causes))


def scrub_errors(conn: Connection, retrains: Iterable[str]) -> int:
    """What retrains that read their rows said when they failed: an error may quote what it failed on."""
    changed = 0
    for part in chunks(retrains):
        failed = update(steps).where(steps.c.request_id.in_(part), steps.c.error != "")
        changed += conn.execute(failed.values(error=ERASED_ERROR)).rowcount
        ended = update(requests).where(requests.c.id.in_(part), requests.c.status == "failed", requests.c.detail != "")
        changed += conn.execute(ended.values(detail=ERASED_ERROR)).rowcount
    return changed


# --- where their rows went ---------------------------------------------------------------------------


def places_of(conn: Connection, theirs: Subjects) -> dict[str, list[str]]:
    """Retrains that read their rows, snapshots that hold them, versions they taught, tracking runs that show them."""
    holding: set[str] = set()
    teaching: set[str] = set()
    for part in chunks(theirs.snapshot_rows):
        query = select(snapshot_rows.c.snapshot, snapshot_rows.c.split).where(snapshot_rows.c.row_id.in_(part))
        for row in conn.execute(query.distinct()):
            holding.add(row.snapshot)
            if row.split == "train":
                teaching.add(row.snapshot)
    retrains, runs = _retrains(conn, theirs, holding)
    return {
        "models": list(theirs.models),
        "retrains": sorted(retrains),
        "runs": sorted(runs),
        "snapshots": sorted(holding),
        "teaching": sorted(teaching),
    }


def _retrains(conn: Connection, theirs: Subjects, snapshots: set[str]) -> tuple[set[str], set[str]]:
    mine = set(theirs.incidents)
    outputs: dict[str, dict[str, Any]] = {}
    query = (
        select(steps.c.request_id, steps.c.name, steps.c.output)
        .join(requests, requests.c.id == steps.c.request_id)
        .where(requests.c.model.in_(theirs.models), steps.c.name.in_(("ingest", "snapshot", "track")))
    )
    for row in conn.execute(query):
        outputs.setdefault(row.request_id, {})[row.name] = row.output
    involved: set[str] = set()
    for request_id, of in outputs.items():
        ingested = of.get("ingest")
        made = ((of.get("snapshot") or {}).get("snapshot") or {}).get("digest")
        since = theirs.first_teaching_seq
        if (
            made in snapshots
            or (ingested is None and (since is not None or mine))  # begun and not proved: it may have read them
            or (ingested is not None and since is not None and int(ingested["watermark"]) >= since)
            or (ingested is not None and mine.intersection(ingested.get("incidents", ())))
        ):
            involved.add(request_id)
    runs = {r: str((outputs[r].get("track") or {}).get("run_id") or "") for r in involved}
    return involved, {f"{run} {r}" for r, run in runs.items() if run}


# --- what came in while an erasure began ----------------------------------------------------------------


def names_since(conn: Connection, seq: int) -> set[str]:
    """Principals of what was committed after `seq`, and of everybody who opened an incident."""
    names: set[str] = set()
    for table in (interactions, feedback):
        names.update(conn.execute(select(table.c.principal).where(table.c.seq > seq).distinct()).scalars())
    names.update(conn.execute(select(incidents.c.opened_by).distinct()).scalars())
    return names


def late_rows(conn: Connection, job: Erasure, principal: str | None) -> Subjects:
    """Rows that were on their way when the erasure began: requests made, things said and incidents opened before it.

    What the person does after it is a new start and stays.
    """
    mine = select(erased.c.id).where(erased.c.erasure == job.id, erased.c.kind == "request")
    slipped = conn.execute(
        select(incidents.c.id, incidents.c.model).where(
            or_(
                incidents.c.interaction_id.in_(mine),
                and_(incidents.c.opened_by == principal, incidents.c.opened_at <= job.requested_at),
            )
        )
    ).all()
    query = select(interactions.c.id, interactions.c.model).where(interactions.c.seq > job.upto_seq)
    served = [
        row
        for row in conn.execute(query.where(interactions.c.principal == principal)).all()
        if (asked := asked_at(row.id)) is not None and asked < job.requested_at
    ]
    late = [row.id for row in served]
    said = conn.execute(
        select(feedback.c.id, feedback.c.model, feedback.c.kind, feedback.c.seq)
        .where(feedback.c.seq > job.upto_seq)
        .where(
            or_(
                feedback.c.interaction_id.in_(late),
                and_(feedback.c.principal == principal, feedback.c.created_at <= job.requested_at),
            )
        )
    ).all()
    return Subjects(
        requests=tuple(late),
        rows=tuple(row.id for row in said),
        incidents=tuple(row.id for row in slipped),
        models=tuple(sorted({row.model for row in (*served, *said, *slipped)})),
        first_teaching_seq=min((row.seq for row in said if row.kind in TEACHING), default=None),
    )
