"""Snapshots: immutable, content-addressed sets of teaching rows. The manifest is written last.

    publish(root, rows, ...)            -> DatasetSnapshot, in root/<digest>; publish_stream takes batches
    read_rows(path, split)              iter_rows a batch at a time; load_dataset_split for Hugging Face datasets
    read_manifest(path), verify(path)
    erase_rows(path, row_ids)           rows become tombstones; the snapshot verifies, and trains no more

The digest is over the canonical rows and what they mean (model, contract, base, replay), never over Parquet bytes, so
it is the same whatever the order of rows, the time zone or the version of the file format's library. How a folder
looks inside is in snapshot_files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from configs.errors import SnapshotError
from data_contracts import snapshot_files
from data_contracts.records import DatasetSnapshot, SnapshotRow
from data_contracts.snapshot_erasure import erase_rows
from data_contracts.snapshot_files import (
    DERIVED,
    MANIFEST,
    ROWS,
    Tally,
    columns_of,
    entries,
    fsync,
    leaf_of,
    locked,
    name_of,
    opened,
    read_manifest,
    row_of,
)
from data_contracts.snapshot_publish import publish_stream, sweep_unfinished
from data_contracts.snapshot_sets import LeafSet

__all__ = [
    "MANIFEST", "ROWS", "erase_rows", "iter_rows", "load_dataset_split", "publish", "publish_stream", "read_manifest",
    "read_rows", "remaining_rows", "row_ids_of", "snapshot_digest", "sweep_unfinished", "verify",
]  # fmt: skip


def snapshot_digest(
    rows: Sequence[SnapshotRow], *, model: str, contract_digest: str, base_digest: str, replay: Mapping[str, str]
) -> str:
    """The name of a snapshot: a digest of its rows as a set, its model, contract, base and replay provenance."""
    leaves = LeafSet()
    for row in rows:
        leaves.add(leaf_of(columns_of(row)))
    return name_of(leaves, model=model, contract_digest=contract_digest, base_digest=base_digest, replay=replay)


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
    sources: Mapping[str, str] | None = None,
    config_digest: str = "",
) -> DatasetSnapshot:
    """`publish_stream` of rows that are all there.

    Raises:
        SnapshotError: no rows, or two different rows with the same digest.
    """
    return publish_stream(
        root,
        [rows],
        model=model,
        contract_digest=contract_digest,
        base_digest=base_digest,
        watermark=watermark,
        reasons=reasons,
        replay=replay,
        created_at=created_at,
        sources=sources,
        config_digest=config_digest,
    )


def read_rows(path: Path | str, split: str | None = None, *, check: bool = True) -> list[SnapshotRow]:
    """The rows of a snapshot in its own order (split, source, leaf).

    Args:
        path: the snapshot's folder.
        split: only rows of `train`, `target` or `incident`.
        check: compute the digest again and compare.

    Raises:
        SnapshotError: not a finished snapshot, unreadable, not the rows its digest names, or rows of it were erased.
    """
    _refuse_erased(read_manifest(path))
    record, rows = _read(path, check=check)
    _refuse_erased(record)
    return [row for row in rows if split is None or row.split == split]


def _refuse_erased(record: DatasetSnapshot) -> None:
    if record.erased:
        raise SnapshotError(
            "rows of this snapshot were erased, so it can no longer train",
            where=record.path,
            expected="a snapshot without tombstones",
            found=f"{record.erased} erased rows",
            fix="run the retrain again; it publishes a snapshot without them",
        )


def iter_rows(path: Path | str, split: str | None = None) -> Iterator[list[SnapshotRow]]:
    """The rows of a snapshot in batches, in its own order; the digest is compared after the last batch.

    Raises:
        SnapshotError: as `read_rows`; where the rows are not those of the digest, after they were given.
    """
    _refuse_erased(read_manifest(path))
    tally = Tally()
    with opened(path) as (record, file):
        _refuse_erased(record)
        for batch in entries(file):
            for entry in batch:
                tally.add(entry)
            rows = [row_of(c) for _, c in batch if c is not None and split in (None, c["split"])]
            if rows:
                yield rows
    snapshot_files.check(record, tally)


def row_ids_of(path: Path | str) -> list[str]:
    """All feedback ids of a snapshot, sorted; from the manifest, or from the rows where they are too many for it."""
    record = read_manifest(path)
    if len(record.row_ids) >= record.feedback_rows:
        return list(record.row_ids)
    found: set[str] = set()
    with opened(path) as (_, file):
        for batch in file.iter_batches(columns=["row_id"]):
            found.update(batch.column(0).to_pylist())
    return sorted(row_id for row_id in found if row_id)


def load_dataset_split(path: Path | str, split: str) -> Any:
    """One split as a `datasets.Dataset`, memory-mapped: rows are read from disk as they are asked for.

    Parquet is compressed and cannot be mapped, so the split is written beside it once as an Arrow file, after the
    snapshot was verified. It lies in the snapshot's folder and not in a cache of the library (as do the files `map`
    makes of it), so that erasing rows removes it too; a process that has it open keeps what it mapped.

    Raises:
        SnapshotError: as `read_rows`.
    """
    _refuse_erased(read_manifest(path))
    with locked(snapshot_files.folder_of(path)):
        record = read_manifest(path)
        _refuse_erased(record)
        target = Path(record.path) / DERIVED / f"{split}.arrow"
        if not target.exists():
            _write_arrow(path, split, target)
    from datasets import Dataset

    return Dataset.from_file(str(target))


def _write_arrow(path: Path | str, split: str, target: Path) -> None:
    import pyarrow as pa

    fields = [field for field in snapshot_files.schema() if field.name != "leaf"]
    target.parent.mkdir(exist_ok=True)
    temporary = target.with_suffix(".part")
    # The stream format is the one `datasets` maps.
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, pa.schema(fields)) as writer:
        for rows in iter_rows(path, split):
            writer.write_batch(pa.RecordBatch.from_pylist([columns_of(row) for row in rows], schema=pa.schema(fields)))
    fsync(temporary)
    temporary.replace(target)


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
                if entry.columns is not None:
                    rows.append(row_of(entry.columns))
    if check:
        snapshot_files.check(record, tally)
    return record, rows
