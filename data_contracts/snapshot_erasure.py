"""Erase rows of a published snapshot: of each only a tombstone stays, so that the snapshot's digest still verifies.

The rows go to a new file, the manifest is replaced by one that names it, the old file is unlinked, in that order: a
reader or a crash sees the old or the new. A crash in between can leave a file nobody names; the next call removes it.

What stays of an erased row is its leaf (see snapshot_files) and its place in the manifest's counts. Its feedback id
goes too: an id carries the time it was given and can be joined with logs elsewhere. Which versions a person's rows
taught is for the store to remember before it calls this.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Set
from pathlib import Path
from typing import Any

from data_contracts.records import OPTIONAL_COLUMNS, DatasetSnapshot
from data_contracts.snapshot_files import (
    COLUMNS,
    DERIVED,
    GROUP,
    MANIFEST,
    ROW_IDS_INLINE,
    completed,
    entry_of,
    folder_of,
    fsync,
    locked,
    opened,
    read_manifest,
    schema,
    write_manifest,
)
from data_contracts.snapshot_sets import IdSet


def erase_rows(path: Path | str, row_ids: Set[str], *, digests: Set[str] = frozenset()) -> int:
    """Replace rows by tombstones. Their bytes leave the folder, also those of files made from the rows.

    Safe to call again: rows erased before do not count, and what a killed call left behind is removed.

    Args:
        path: the snapshot's folder.
        row_ids: feedback ids; ids that are not in the snapshot are ignored.
        digests: digests of rows without a feedback id (incidents, replay).

    Returns:
        The number of rows erased now.

    Raises:
        SnapshotError: not a finished snapshot, or its rows cannot be read (then delete the folder).
    """
    folder = folder_of(path)
    read_manifest(folder)  # a clear error where there is nothing to lock
    with locked(folder):
        record = read_manifest(folder)
        _sweep(folder, record)
        if not _holds_any(folder, row_ids, digests):
            return 0
        name = f"rows-{uuid.uuid4().hex}.parquet"
        with opened(folder) as (_, file):
            erased, kept_ids = _rewrite(file, folder / name, row_ids, digests)
        changed = {"rows_file": name, "erased": record.erased + erased, **kept_ids.facts(ROW_IDS_INLINE)}
        write_manifest(folder, record.model_copy(update=changed))
        _sweep(folder, read_manifest(folder))
        shutil.rmtree(folder / DERIVED, ignore_errors=True)
        fsync(folder)
        return erased


def _sweep(folder: Path, record: DatasetSnapshot) -> None:
    """Remove files of rows that the manifest does not name, and unfinished manifests."""
    for file in [*folder.glob("rows*.parquet"), *folder.glob(f".{MANIFEST}-*")]:
        if file.name != record.rows_file:
            file.unlink(missing_ok=True)
    if record.erased:
        # What was derived before the erasure may have outlived a crash; what was derived since is made again.
        shutil.rmtree(folder / DERIVED, ignore_errors=True)


def _holds_any(folder: Path, row_ids: Set[str], digests: Set[str]) -> bool:
    with opened(folder) as (_, file):
        for batch in file.iter_batches(columns=["row_id", "digest"]):
            held = batch.to_pydict()
            if not row_ids.isdisjoint(held["row_id"]) or not digests.isdisjoint(held["digest"]):
                return True
    return False


def _rewrite(file: Any, target: Path, row_ids: Set[str], digests: Set[str]) -> tuple[int, IdSet]:
    """Write what stays, tombstones at the end; (rows erased now, feedback ids that stay)."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tombstones: list[str] = []
    kept_ids = IdSet()
    erased = 0
    ids, names = (pa.array(sorted(values), pa.string()) for values in (row_ids, digests))
    with pq.ParquetWriter(target, schema(), compression="zstd") as writer:
        for batch in file.iter_batches(GROUP):
            if "leaf" not in batch.schema.names:  # from before tombstones
                leaves = [entry_of(columns).leaf for columns in batch.to_pylist()]
                batch = batch.append_column("leaf", pa.array(leaves, pa.string()))
            going = pc.or_(pc.is_in(batch["row_id"], ids), pc.is_in(batch["digest"], names))
            gone = pc.is_null(batch["digest"])
            # The leaf of a row that goes is computed, not taken from its column: it is all that will be left of it.
            tombstones += [entry_of(columns).leaf for columns in batch.filter(going).to_pylist()]
            tombstones += batch["leaf"].filter(gone).to_pylist()
            erased += pc.sum(going).as_py() or 0
            kept = completed(batch.filter(pc.invert(pc.or_(going, gone))))
            kept_ids.add_all(kept["row_id"])
            writer.write_batch(kept)
        tombstones.sort()
        empty: dict[str, Any] = {**dict.fromkeys((*COLUMNS, *OPTIONAL_COLUMNS)), "messages": None}
        for start in range(0, len(tombstones), GROUP):
            part = [{**empty, "leaf": leaf} for leaf in tombstones[start : start + GROUP]]
            writer.write_table(pa.Table.from_pylist(part, schema=schema()))
    fsync(target)
    fsync(target.parent)
    return erased, kept_ids
