"""Snapshots: immutable, content-addressed sets of teaching rows. The manifest is written last.

    publish(root, rows, ...)            -> DatasetSnapshot, in root/<digest>
    read_rows(path, split), verify(path), read_manifest(path)
    erase_rows(path, row_ids)           rows become tombstones; the snapshot verifies, and trains no more

The digest is over the canonical rows and what they mean (model, contract, base, replay), never over Parquet bytes, so
it is the same whatever the order of rows, the time zone or the version of the file format's library. How a folder
looks inside is in snapshot_files.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from configs.errors import SnapshotError
from data_contracts import snapshot_files
from data_contracts.leaf_set import LeafSet
from data_contracts.records import DatasetSnapshot, SnapshotRow
from data_contracts.snapshot_erasure import columns_of, erase_rows
from data_contracts.snapshot_files import (
    MANIFEST,
    ROWS,
    Tally,
    entries,
    fsync,
    id_facts,
    leaf_of,
    name_of,
    opened,
    read_manifest,
    schema,
    stale,
)

__all__ = [
    "MANIFEST", "ROWS", "erase_rows", "publish", "read_manifest", "read_rows", "remaining_rows", "snapshot_digest",
    "verify",
]  # fmt: skip
_TEMPORARY = ".publishing-"
_STALE_S = 3600.0


def _ordered(rows: Sequence[SnapshotRow]) -> list[tuple[str, SnapshotRow]]:
    """(leaf, row) sorted by split, source and leaf; a row given twice counts once.

    Raises:
        SnapshotError: two different rows carry the same digest.
    """
    leaves: dict[str, SnapshotRow] = {}
    by_digest: dict[str, str] = {}
    for row in rows:
        leaf = leaf_of(row)
        if by_digest.setdefault(row.digest, leaf) != leaf:
            raise SnapshotError(
                "two different rows carry the same digest",
                where=row.digest,
                found=f"row ids {leaves[by_digest[row.digest]].row_id!r} and {row.row_id!r}",
                fix="a row trains at most once and in one split; give each row its own digest",
            )
        leaves[leaf] = row
    return sorted(leaves.items(), key=lambda item: (item[1].split, item[1].source, item[0]))


def snapshot_digest(
    rows: Sequence[SnapshotRow], *, model: str, contract_digest: str, base_digest: str, replay: Mapping[str, str]
) -> str:
    """The name of a snapshot: a digest of its rows as a set, its model, contract, base and replay provenance."""
    leaves = LeafSet()
    for leaf, _ in _ordered(rows):
        leaves.add(leaf)
    return name_of(leaves, model=model, contract_digest=contract_digest, base_digest=base_digest, replay=replay)


def _sweep(root: Path) -> None:
    """Remove unfinished folders that a killed process left an hour ago or earlier."""
    for folder in root.glob(f"{_TEMPORARY}*"):
        if stale(folder, _STALE_S):
            shutil.rmtree(folder, ignore_errors=True)


def publish(
    root: Path,
    rows: Sequence[SnapshotRow],
    *,
    model: str,
    contract_digest: str,
    base_digest: str,
    watermark: int,
    reasons: Mapping[str, int],
    replay: Mapping[str, str],
    created_at: datetime,
) -> DatasetSnapshot:
    """Write the rows to `root/<digest>` and return the record; the same rows published again are the one that is there.

    Args:
        root: the folder of all snapshots.
        rows: in any order; at least one. A row given twice counts once.
        model: the product model they teach.
        contract_digest: of the contract they met.
        base_digest: of the base model that is trained.
        watermark: highest commit sequence number that was considered.
        reasons: rows left out, by reason code.
        replay: provenance of the replay rows.
        created_at: aware.

    Raises:
        SnapshotError: no rows, or two different rows with the same digest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = _ordered(rows)
    ordered = [row for _, row in lines]
    if not ordered:
        raise SnapshotError("a snapshot without rows", where=root, fix="wait for accepted feedback before publishing")
    name = snapshot_digest(
        ordered, model=model, contract_digest=contract_digest, base_digest=base_digest, replay=replay
    )
    target = root / name
    if (target / MANIFEST).is_file():
        return read_manifest(target)
    root.mkdir(parents=True, exist_ok=True)
    _sweep(root)
    record = DatasetSnapshot(
        digest=name,
        path="",
        model=model,
        created_at=created_at,
        contract_digest=contract_digest,
        base_digest=base_digest,
        watermark=watermark,
        counts=dict(sorted(Counter(f"{row.split}.{row.source}" for row in ordered).items())),
        reasons=dict(sorted(reasons.items())),
        **id_facts({row.row_id for row in ordered if row.row_id}),
        replay=dict(replay),
    )
    temporary = root / f"{_TEMPORARY}{name[:16]}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        table = pa.Table.from_pylist([columns_of(leaf, row) for leaf, row in lines], schema=schema())
        pq.write_table(table, temporary / ROWS, compression="zstd")
        fsync(temporary / ROWS)
        (temporary / MANIFEST).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        fsync(temporary / MANIFEST)
        fsync(temporary)
        try:
            temporary.rename(target)
        except OSError as error:
            # Another process published the same rows in between: theirs is ours.
            if not (target / MANIFEST).is_file():
                raise SnapshotError("a snapshot cannot be put in place", where=target, found=error) from error
        fsync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_manifest(target)


def read_rows(path: Path | str, split: str | None = None, *, check: bool = True) -> list[SnapshotRow]:
    """The rows of a snapshot in its own order (split, source, leaf).

    Args:
        path: the snapshot's folder.
        split: only rows of `train`, `target` or `incident`.
        check: compute the digest again and compare.

    Raises:
        SnapshotError: not a finished snapshot, unreadable, not the rows its digest names, or rows of it were erased.
    """
    record, rows = _read(path, check=check)
    if record.erased:
        raise SnapshotError(
            "rows of this snapshot were erased, so it can no longer train",
            where=record.path,
            expected="a snapshot without tombstones",
            found=f"{record.erased} erased rows",
            fix="run the retrain again; it publishes a snapshot without them",
        )
    return [row for row in rows if split is None or row.split == split]


def remaining_rows(path: Path | str) -> list[SnapshotRow]:
    """All rows but the erased ones, for showing and comparing; never to train on.

    Raises:
        SnapshotError: not a finished snapshot, unreadable, or not the rows its digest names.
    """
    return _read(path, check=True)[1]


def verify(path: Path | str) -> DatasetSnapshot:
    """Read everything and compare it with the digest, the counts and the ids of the manifest.

    Raises:
        SnapshotError: anything is missing or differs.
    """
    tally = Tally()
    with opened(path) as (record, file):
        for batch in entries(file):
            for entry in batch:
                tally.add(entry)
    snapshot_files.check(record, tally)
    return record


def _read(path: Path | str, *, check: bool) -> tuple[DatasetSnapshot, list[SnapshotRow]]:
    tally, rows = Tally(), []
    with opened(path) as (record, file):
        for batch in entries(file):
            for entry in batch:
                tally.add(entry)
                if entry.row is not None:
                    rows.append(entry.row)
    if check:
        snapshot_files.check(record, tally)
    return record, rows
