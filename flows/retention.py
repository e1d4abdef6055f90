"""Retention: what is older than `retention.ttl_days` goes, by the machinery of erasure, counted in the audit log.

Rows leave the store. A published snapshot keeps them while a version it taught serves, is a canary, or is what a
rollback goes back to: that version must stay reproducible. In every other snapshot they become tombstones. Files are
`flows.retention_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from configs.errors import SnapshotError
from data_contracts.records import utc_now
from flows import retention_files
from flows.context import Context
from monitoring.rollout_actions import best_untainted
from store import audit, pointer, requests, retention, rollouts, snapshots, versions

Cutoffs = dict[str, datetime]
TABLES: dict[str, Callable[[Connection, str, datetime], int]] = {
    "feedback": retention.count_feedback,
    "incident": retention.count_incidents,
    "interaction": retention.count_interactions,
    "quarantine": retention.count_quarantine,
    "review": retention.count_reviews,
}
TAUGHT = ("feedback", "incident")
"""Kinds whose rows snapshots hold."""


def cutoffs(context: Context, now: datetime | None = None) -> Cutoffs:
    """`{kind: everything before this goes}` for the kinds that have a limit."""
    now = now or utc_now()
    ttl = context.config.retention.ttl_days.model_dump()
    return {kind: now - timedelta(days=days) for kind, days in ttl.items() if days is not None}


@dataclass
class _Pass:
    """One pass, and what it deleted until now."""

    context: Context
    limits: Cutoffs
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, conn: Connection, kind: str, number: int, **where: str) -> None:
        """Count what a transaction deletes and put it into the audit log with it; at its end, as everybody does."""
        self.counts[kind] = self.counts.get(kind, 0) + number
        if number:
            before = {kind: self.limits[kind].isoformat()} if kind in self.limits else {}
            detail = {kind: number, "before": before, **where}
            audit.append(conn, "retention", "retention.deleted", self.context.model, detail)


def retain(context: Context, *, dry_run: bool = False, now: datetime | None = None) -> dict[str, int]:
    """Delete what is too old, or count it; returns `{kind: number}` for the kinds that have a limit.

    Feedback and incidents go before requests: a request is kept as long as one of them points to it. What was deleted
    is in the audit log and out of the write-ahead log also where the pass fails later.

    Raises:
        StoreError: the write-ahead log could not be emptied; what was deleted stays deleted.
        OSError: a folder cannot be read or written.
    """
    limits = cutoffs(context, now)
    if dry_run:
        return _count(context, limits)
    this = _Pass(context, limits)
    try:
        _delete(this)
    finally:
        if any(this.counts.values()):
            context.store.scrub(rewrite=False)
    return this.counts


def _count(context: Context, limits: Cutoffs) -> dict[str, int]:
    counts: dict[str, int] = {}
    with context.store.read() as conn:
        for kind, count in TABLES.items():
            if kind in limits:
                counts[kind] = count(conn, context.model, limits[kind])
    return {**counts, **dict(retention_files.tidy(context, limits, dry_run=True))}


def _delete(this: _Pass) -> None:
    context, limits = this.context, this.limits
    if "feedback" in limits:
        _batches(this, "feedback", retention.drop_feedback)
    if "incident" in limits:
        _batches(this, "incident", retention.drop_incidents)
    if limits.keys() & set(TAUGHT):
        _tombstones(this)
    if "interaction" in limits:
        _batches(this, "interaction", partial(retention.drop_interactions, alias=context.pseudonym))
    if "quarantine" in limits:
        with context.store.write() as conn:
            this.note(conn, "quarantine", retention.drop_quarantine(conn, context.model, limits["quarantine"]))
    if "review" in limits:
        _batches(this, "review", retention.drop_reviews)
    for kind, number in retention_files.tidy(context, limits):
        with context.store.write() as conn:
            this.note(conn, kind, number)


def _batches(this: _Pass, kind: str, drop: Callable[[Connection, str, datetime], Collection[str]]) -> None:
    while True:
        with this.context.store.write() as conn:
            gone = len(drop(conn, this.context.model, this.limits[kind]))
            this.note(conn, kind, gone)
        if gone < retention.BATCH:
            return


def _tombstones(this: _Pass) -> None:
    """Take rows that are not in the store any more out of this model's snapshots behind no live version.

    Looked up by what is left, not by what just went: a pass that was killed between the two is made good by the next.
    """
    from data_contracts.snapshots import erase_rows, read_manifest

    context = this.context
    this.counts["snapshot_rows"] = 0
    with context.store.read() as conn:
        found = snapshots.digests(conn, context.model)
    live = _live_snapshots(context)  # after the list: what is recorded meanwhile is not in it
    for digest in found:
        if digest in live:
            continue
        with context.store.read() as conn:
            lost, known = snapshots.lost_rows(conn, digest), snapshots.facts(conn, digest)
        if not lost or known is None:
            continue
        folder = context.state.snapshots / digest
        try:
            record = read_manifest(folder)
            # By the ids that are left, where they are listed: `erased` counts rows, and an incident has several under
            # one id. Where they are more than 10,000, the ids in the file are looked through.
            listed = len(record.row_ids) >= record.feedback_rows
            if record.erased == known["erased"] and listed and lost.isdisjoint(record.row_ids):
                continue
            erase_rows(folder, lost)
            record = read_manifest(folder)
        except SnapshotError:
            continue  # not on this machine, or gone
        # Against what the store knew: what a pass erased that was killed before it could say so counts now.
        changed = record.erased - known["erased"]
        if changed:
            with context.store.write() as conn:
                snapshots.replace_record(conn, record)
                this.note(conn, "snapshot_rows", changed, snapshot=digest)


def _live_snapshots(context: Context) -> set[str]:
    """Snapshots behind what serves, what is being rolled out, what a rollback goes back to, and what is being made."""
    with context.store.read() as conn:
        arms = [pointer.get(conn, context.model).champion]
        rollout = rollouts.current(conn, context.model)
        if rollout is not None:
            arms += [rollout.candidate, rollout.previous]
        arms.append(best_untainted(conn, context.model, but=arms[0].version))
        found = [versions.get(conn, arm.version) for arm in arms]
        live = {version.dataset_digest for version in found if version is not None}
        request = requests.current(conn, context.model)
        if request is not None and request.status == "claimed":
            newest = snapshots.latest(conn, context.model)
            live |= {newest.digest} if newest is not None else set()
    return live
