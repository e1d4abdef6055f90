"""Retention: what is older than `retention.ttl_days` goes, by the machinery of erasure, counted in the audit log.

Rows leave the store. A published snapshot keeps them while a version it taught serves, is a canary, or is what a
rollback goes back to: that version must stay reproducible. In every other snapshot they become tombstones. Files are
`flows.retention_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
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


def retain(context: Context, *, dry_run: bool = False, now: datetime | None = None) -> dict[str, int]:
    """Delete what is too old, or count it; returns `{kind: number}` for the kinds that have a limit.

    Feedback and incidents go before requests: a request is kept as long as one of them points to it.
    """
    limits = cutoffs(context, now)
    counts = _count(context, limits) if dry_run else _delete(context, limits)
    if not dry_run and any(counts.values()):
        context.store.scrub(rewrite=False)
        with context.store.write() as conn:
            limits_said = {kind: at.isoformat() for kind, at in limits.items()}
            audit.append(conn, "retention", "retention.deleted", context.model, {**counts, "before": limits_said})
    return counts


def _count(context: Context, limits: Cutoffs) -> dict[str, int]:
    counts: dict[str, int] = {}
    with context.store.read() as conn:
        for kind, count in TABLES.items():
            if kind in limits:
                counts[kind] = count(conn, context.model, limits[kind])
    return {**counts, **retention_files.tidy(context, limits, dry_run=True)}


def _delete(context: Context, limits: Cutoffs) -> dict[str, int]:
    counts: dict[str, int] = {}
    if "feedback" in limits:
        counts["feedback"] = _batches(context, retention.drop_feedback, limits["feedback"])
    if "incident" in limits:
        counts["incident"] = _batches(context, retention.drop_incidents, limits["incident"])
    if limits.keys() & set(TAUGHT):
        counts["snapshot_rows"] = _tombstones(context)
    if "interaction" in limits:
        forget = partial(retention.drop_interactions, alias=context.pseudonym)
        counts["interaction"] = _batches(context, forget, limits["interaction"])
    if "quarantine" in limits:
        with context.store.write() as conn:
            counts["quarantine"] = retention.drop_quarantine(conn, context.model, limits["quarantine"])
    if "review" in limits:
        counts["review"] = _batches(context, retention.drop_reviews, limits["review"])
    return {**counts, **retention_files.tidy(context, limits)}


def _batches(context: Context, drop: Callable[[Connection, str, datetime], Collection[str]], before: datetime) -> int:
    gone: set[str] = set()
    while True:
        with context.store.write() as conn:
            ids = drop(conn, context.model, before)
        gone.update(ids)
        if len(ids) < retention.BATCH:
            return len(gone)


def _tombstones(context: Context) -> int:
    """Take rows that are not in the store any more out of this model's snapshots behind no live version.

    Looked up by what is left, not by what just went: a pass that was killed between the two is made good by the next.
    """
    from data_contracts.snapshots import erase_rows, read_manifest

    with context.store.read() as conn:
        found = snapshots.digests(conn, context.model)
    live = _live_snapshots(context)  # after the list: what is recorded meanwhile is not in it
    erased = 0
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
        erased += changed
    return erased


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
