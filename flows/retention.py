"""Retention: what is older than `retention.ttl_days` goes, by the machinery of erasure, counted in the audit log.

Rows leave the store. A published snapshot keeps them while a version it taught serves, is a canary, or is what a
rollback goes back to: that version must stay reproducible. In every other snapshot they become tombstones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from configs.errors import SnapshotError
from data_contracts.records import utc_now
from flows.context import Context
from monitoring.rollout_actions import best_untainted
from store import audit, pointer, requests, retention, rollouts, snapshots, versions

Cutoffs = dict[str, datetime]


def cutoffs(context: Context, now: datetime | None = None) -> Cutoffs:
    """`{kind: everything before this goes}` for the kinds that have a limit."""
    now = now or utc_now()
    ttl = context.config.retention.ttl_days.model_dump()
    return {kind: now - timedelta(days=days) for kind, days in ttl.items() if days is not None}


def retain(context: Context, *, dry_run: bool = False, now: datetime | None = None) -> dict[str, int]:
    """Delete what is too old, or count it; returns `{kind: number}` for the kinds that have a limit.

    Feedback goes before requests: a request is kept as long as feedback points to it.
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
    by_table = {
        "feedback": retention.count_feedback,
        "interaction": retention.count_interactions,
        "quarantine": retention.count_quarantine,
    }
    counts: dict[str, int] = {}
    with context.store.read() as conn:
        for kind, count in by_table.items():
            if kind in limits:
                counts[kind] = count(conn, context.model, limits[kind])
    for kind, paths in (("run", _old_runs), ("report", _old_reports)):
        if kind in limits:
            counts[kind] = len(paths(context, limits[kind]))
    return counts


def _delete(context: Context, limits: Cutoffs) -> dict[str, int]:
    counts: dict[str, int] = {}
    if "feedback" in limits:
        gone = _batches(context, retention.drop_feedback, limits["feedback"])
        counts["feedback"] = len(gone)
        counts["snapshot_rows"] = _tombstones(context)
    if "interaction" in limits:
        counts["interaction"] = len(_batches(context, retention.drop_interactions, limits["interaction"]))
    if "quarantine" in limits:
        with context.store.write() as conn:
            counts["quarantine"] = retention.drop_quarantine(conn, context.model, limits["quarantine"])
    if "run" in limits:
        folders = _old_runs(context, limits["run"])
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        counts["run"] = len(folders)
    if "report" in limits:
        reports = _old_reports(context, limits["report"])
        for path in reports:
            path.unlink(missing_ok=True)
        counts["report"] = len(reports)
    return counts


def _batches(context: Context, drop: Callable[..., list[str]], before: datetime) -> set[str]:
    gone: set[str] = set()
    while True:
        with context.store.write() as conn:
            ids = drop(conn, context.model, before)
        gone.update(ids)
        if len(ids) < retention.BATCH:
            return gone


def _tombstones(context: Context) -> int:
    """Take rows that are not in the store any more out of this model's snapshots behind no live version.

    Looked up by what is left, not by what just went: a pass that was killed between the two is made good by the next.
    """
    from data_contracts.snapshots import erase_rows, read_manifest

    with context.store.read() as conn:
        live = _live_snapshots(context)
        idle = [digest for digest in snapshots.digests(conn, context.model) if digest not in live]
        todo = {digest: lost for digest in idle if (lost := snapshots.lost_rows(conn, digest))}
    erased = 0
    for digest, lost in todo.items():
        folder = context.state.snapshots / digest
        try:
            changed = erase_rows(folder, lost)
            record = read_manifest(folder)
        except SnapshotError:
            continue  # not on this machine, or gone
        erased += changed
        if changed:
            with context.store.write() as conn:
                snapshots.replace_record(conn, record)
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


def _old_runs(context: Context, before: datetime) -> list[Path]:
    """Working folders not touched since, but that of the open request."""
    with context.store.read() as conn:
        request = requests.current(conn, context.model)
    keep = request.id if request is not None else ""
    return [path for path in _older(context.state.runs, before) if path.is_dir() and path.name != keep]


def _old_reports(context: Context, before: datetime) -> list[Path]:
    return [path for path in _older(context.state.reports, before) if path.suffix == ".html"]


def _older(folder: Path, before: datetime) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.stat().st_mtime < before.timestamp())
