"""What changed between two snapshots: rows that came, went or moved and why, counts, and what they were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from data_contracts.records import DatasetSnapshot, Record
from data_contracts.snapshot_files import Tally, check, entries, opened

Pair = tuple[int, int]


class RowChange(Record):
    """One row that is not the same in both."""

    row: str
    """Its feedback id; the row's digest where it has none (incidents, replay)."""
    change: Literal["added", "removed", "moved", "changed"]
    reason: str
    """For example `new`, `erased`, `quarantine: outvoted`, `train -> target`, `correction -> preference`."""
    source: str
    split: str
    """Where it is, or was."""


class SnapshotDiff(Record):
    """From snapshot `a` to snapshot `b`."""

    a: str
    b: str
    facts: dict[str, tuple[str, str]]
    """What they were made with, where it differs: model, contract, base, config, replay, sources, watermark."""
    rows: dict[str, int]
    """Changed rows by change and reason, for example {"removed: erased": 2}."""
    changes: tuple[RowChange, ...]
    """The changed rows, at most as many as asked for."""
    unchanged: int
    counts: dict[str, Pair]
    """Rows per split and source, in both; without tombstones."""
    slices: dict[str, Pair]
    """Rows per slice, where it differs."""
    left_out: dict[str, Pair]
    """Rows left out by reason code, in both."""
    erased: Pair
    """Tombstones."""


class _Seen(NamedTuple):
    leaf: bytes
    split: str
    source: str


class _Side:
    """One snapshot, read and verified."""

    def __init__(self, path: Path | str) -> None:
        self.rows: dict[str, _Seen] = {}
        self.tombstones: set[bytes] = set()
        self.slices: Counter[str] = Counter()
        tally = Tally()
        with opened(path) as (record, file):
            self.record: DatasetSnapshot = record
            for batch in entries(file):
                for entry in batch:
                    tally.add(entry)
                    leaf = bytes.fromhex(entry.leaf)
                    row = entry.columns
                    if row is None:
                        self.tombstones.add(leaf)
                        continue
                    self.rows[row["row_id"] or row["digest"]] = _Seen(leaf, row["split"], row["source"])
                    self.slices[row["slice"]] += 1
        check(record, tally)
        self.counts = tally.counts


def diff_snapshots(
    a: Path | str, b: Path | str, *, why_gone: Callable[[str], str] | None = None, limit: int = 1000
) -> SnapshotDiff:
    """Compare two snapshots; both are verified.

    Args:
        a: the earlier one's folder.
        b: the later one's folder.
        why_gone: feedback id -> why a row that `b` does not hold is not there (what the store knows of it), or "".
        limit: most changed rows to list; all are counted.

    Raises:
        SnapshotError: one of them is none, or does not match its digest.
    """
    one, two = _Side(a), _Side(b)
    reasons: Counter[str] = Counter()
    listed: list[RowChange] = []
    unchanged = 0
    for key in sorted(one.rows.keys() | two.rows.keys()):
        change = _change(key, one, two, why_gone)
        if change is None:
            unchanged += 1
            continue
        reasons[f"{change.change}: {change.reason}"] += 1
        if len(listed) < limit:
            listed.append(change)
    return SnapshotDiff(
        a=one.record.digest,
        b=two.record.digest,
        facts=_facts(one.record, two.record),
        rows=dict(sorted(reasons.items())),
        changes=tuple(listed),
        unchanged=unchanged,
        counts=_pairs(one.counts, two.counts),
        slices={name: pair for name, pair in _pairs(one.slices, two.slices).items() if pair[0] != pair[1]},
        left_out=_pairs(Counter(one.record.reasons), Counter(two.record.reasons)),
        erased=(len(one.tombstones), len(two.tombstones)),
    )


def _change(key: str, one: _Side, two: _Side, why_gone: Callable[[str], str] | None) -> RowChange | None:
    before, after = one.rows.get(key), two.rows.get(key)
    if before is None and after is not None:
        reason = "erased in the first since" if after.leaf in one.tombstones else "new"
        return RowChange(row=key, change="added", reason=reason, source=after.source, split=after.split)
    if before is not None and after is None:
        reason = "erased" if before.leaf in two.tombstones else (why_gone(key) if why_gone else "")
        return RowChange(
            row=key, change="removed", reason=reason or "no longer chosen", source=before.source, split=before.split
        )
    if before is None or after is None or before.leaf == after.leaf:
        return None
    moved = before.split != after.split
    if moved:
        reason = f"{before.split} -> {after.split}"
    elif before.source != after.source:
        reason = f"{before.source} -> {after.source}"
    else:
        reason = "other text, label, slice or digest"
    return RowChange(
        row=key,
        change="moved" if moved else "changed",
        reason=reason,
        source=after.source,
        split=after.split,
    )


def _pairs(one: Counter[str], two: Counter[str]) -> dict[str, Pair]:
    return {name: (one[name], two[name]) for name in sorted(one.keys() | two.keys())}


def _facts(one: DatasetSnapshot, two: DatasetSnapshot) -> dict[str, tuple[str, str]]:
    def of(record: DatasetSnapshot) -> dict[str, str]:
        return {
            "model": record.model,
            "contract": record.contract_digest,
            "base": record.base_digest,
            "config": record.config_digest,
            "watermark": str(record.watermark),
            **{f"replay.{name}": value for name, value in record.replay.items()},
            **{f"source.{name}": value for name, value in record.sources.items()},
        }

    before, after = of(one), of(two)
    names = sorted(before.keys() | after.keys())
    pairs = {name: (before.get(name, ""), after.get(name, "")) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
