"""Publish a snapshot from a stream of batches, with bounded memory.

Rows are sorted in runs of some ten thousand, which are put aside on disk; in memory stay 49 bytes a row (kind, leaf,
hash of the row's digest). When all rows are there, the order of all is known, and the runs are merged into the file.
Past some ten million rows, split them by leaf prefix over several processes, as docs/scale.md works out.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from configs.errors import SnapshotError
from data_contracts.records import OPTIONAL_COLUMNS, DatasetSnapshot, SnapshotRow
from data_contracts.snapshot_files import (
    COLUMNS,
    GROUP,
    MANIFEST,
    ROW_IDS_INLINE,
    ROWS,
    columns_of,
    fsync,
    leaf_of,
    name_of,
    read_manifest,
    schema,
)
from data_contracts.snapshot_sets import IdSet, LeafSet

_TEMPORARY = ".publishing-"
_RUN_ROWS = 16_384
_RUN_CHARACTERS = 1 << 26
_PIECE = 1024
"""Rows of a run that are read at a time."""
_CHOICES = {name: sorted(get_args(SnapshotRow.model_fields[name].annotation)) for name in ("split", "source")}
KINDS = tuple((split, source) for split in _CHOICES["split"] for source in _CHOICES["source"])


def publish_stream(
    root: Path,
    batches: Iterable[Sequence[SnapshotRow] | Any],
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
    """Write the rows to `root/<digest>` and return the record; the same rows published again are the one that is there.

    Args:
        root: the folder of all snapshots.
        batches: of rows in any order, each a sequence of SnapshotRow or a pyarrow Table or RecordBatch with its
            columns (`rejected` and `label` may be missing); at least one row in all. A row given twice counts once.
        model: the product model they teach.
        contract_digest: of the contract they met.
        base_digest: of the base model that is trained.
        watermark: highest commit sequence number that was considered.
        reasons: rows left out, by reason code; like `sources` read after the last batch, which may still change them.
        replay: provenance of the replay rows.
        created_at: aware.
        sources: source name -> its watermark.
        config_digest: of the curation policy.

    Raises:
        SnapshotError: no rows, two different rows with the same digest, or a batch without the columns.
    """
    root.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(root)
    with _temporary(root) as folder:
        runs = _set_aside(folder, batches)
        facts: dict[str, Any] = {"model": model, "contract_digest": contract_digest, "base_digest": base_digest}
        name = name_of(runs.leaves, **facts, replay=replay)
        target = root / name
        if not (target / MANIFEST).is_file():
            maps: dict[str, dict[str, Any]] = {
                "reasons": dict(reasons),
                "sources": dict(sources or {}),
                "replay": dict(replay),
            }
            maps["counts"] = runs.write(runs.order(), folder / ROWS)
            facts |= {key: dict(sorted(value.items())) for key, value in maps.items()}
            facts |= {"digest": name, "path": "", "config_digest": config_digest, "created_at": created_at}
            record = DatasetSnapshot(**facts, watermark=watermark, **runs.row_ids.facts(ROW_IDS_INLINE))
            runs.remove()
            (folder / MANIFEST).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
            _put_in_place(folder, target)
    return read_manifest(target)


def _set_aside(folder: Path, batches: Iterable[Any]) -> _Runs:
    runs = _Runs(folder)
    for batch in batches:
        runs.add(batch)
    runs.flush()
    if not runs.rows:
        fix = "wait for accepted feedback before publishing"
        raise SnapshotError("a snapshot without rows", where=folder.parent, fix=fix)
    return runs


def _put_in_place(folder: Path, target: Path) -> None:
    for path in (folder / ROWS, folder / MANIFEST, folder):
        fsync(path)
    try:
        folder.rename(target)
    except OSError as error:
        # Another process published the same rows in between: theirs is ours.
        if not (target / MANIFEST).is_file():
            raise SnapshotError("a snapshot cannot be put in place", where=target, found=error) from error
    fsync(target.parent)


@contextmanager
def _temporary(root: Path) -> Iterator[Path]:
    """A folder that is locked while its process lives, and gone afterwards unless it was renamed."""
    folder = root / f"{_TEMPORARY}{uuid.uuid4().hex}"
    folder.mkdir()
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def sweep_unfinished(root: Path, min_age_s: float = 60.0) -> int:
    """Remove what killed publishers left; folders of living ones are locked and stay. Returns how many went."""
    removed = 0
    for folder in root.glob(f"{_TEMPORARY}*"):
        try:
            if time.time() - folder.stat().st_mtime < min_age_s:
                continue  # perhaps made just now and not locked yet
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
        except BlockingIOError:
            pass
        finally:
            os.close(handle)
    return removed


def _lines(batch: Any) -> list[dict[str, Any]]:
    """A batch as columns per row."""
    if not hasattr(batch, "to_pylist"):
        return [columns_of(row) for row in batch]
    names = (*COLUMNS, "messages")
    missing = [name for name in names if name not in batch.schema.names]
    if missing:
        raise SnapshotError(
            "a batch of rows without all columns", expected=", ".join(names), found=f"no {', '.join(missing)}"
        )
    there = [*names, *(name for name in OPTIONAL_COLUMNS if name in batch.schema.names)]
    # Through the record, so that what a batch may hold is the same as what a row may hold.
    return [columns_of(SnapshotRow.model_validate(line)) for line in batch.select(there).to_pylist()]


class _Runs:
    """Sorted runs on disk, and what must be known of every row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "runs"
        self._folder.mkdir()
        self._lines: list[tuple[int, str, dict[str, Any]]] = []
        self._characters = 0
        self.leaves = LeafSet()
        self._kinds = bytearray()
        self._names = bytearray()
        self._starts = [0]
        self.row_ids = IdSet()

    @property
    def rows(self) -> int:
        return len(self._kinds)

    def add(self, batch: Any) -> None:
        """Take rows in; a run is put aside when enough are there."""
        try:
            lines = _lines(batch)
        except ValueError as error:
            first = str(error).replace("\n", " ")[:300]
            raise SnapshotError("a row that is none", expected="the columns of a SnapshotRow", found=first) from error
        for line in lines:
            kind = KINDS.index((line["split"], line["source"]))
            self._lines.append((kind, leaf_of(line), line))
            texts = (line["completion"], line["rejected"] or "", *(m["content"] for m in line["messages"]))
            self._characters += sum(map(len, texts))
            if len(self._lines) >= _RUN_ROWS or self._characters >= _RUN_CHARACTERS:
                self.flush()

    def flush(self) -> None:
        """Put the rows so far aside as one sorted run."""
        import pyarrow as pa

        if not self._lines:
            return
        self._lines.sort(key=lambda item: item[:2])
        with pa.OSFile(str(self._path(len(self._starts) - 1)), "wb") as file, pa.ipc.new_file(file, schema()) as writer:
            for at in range(0, len(self._lines), _PIECE):
                piece = [{**line, "leaf": leaf} for _, leaf, line in self._lines[at : at + _PIECE]]
                writer.write_batch(pa.RecordBatch.from_pylist(piece, schema=schema()))
        for kind, leaf, line in self._lines:
            self._kinds.append(kind)
            self.leaves.add(leaf)
            self._names += hashlib.sha256(line["digest"].encode("utf-8", "surrogatepass")).digest()[:16]
            self.row_ids.add(line["row_id"])
        self._starts.append(self.rows)
        self._lines, self._characters = [], 0

    def _path(self, run: int) -> Path:
        return self._folder / f"{run:06d}.arrow"

    def order(self) -> Any:
        """(n,) places of the distinct rows by split, source and leaf.

        Raises:
            SnapshotError: two different rows carry the same digest.
        """
        import numpy as np

        words = self.leaves.words()
        kinds = np.frombuffer(bytes(self._kinds), np.uint8)
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0], kinds))
        repeats = (words[order[1:]] == words[order[:-1]]).all(axis=1)
        order = order[np.concatenate([[True], ~repeats])]
        names = np.frombuffer(bytes(self._names), ">u8").reshape(-1, 2)[order]
        by_name = np.lexsort((names[:, 1], names[:, 0]))
        clash = np.flatnonzero((names[by_name[1:]] == names[by_name[:-1]]).all(axis=1))
        if len(clash):
            one, two = (self._row(int(order[by_name[clash[0] + k]])) for k in (0, 1))
            raise SnapshotError(
                "two different rows carry the same digest",
                where=one["digest"],
                found=f"row ids {one['row_id']!r} and {two['row_id']!r}",
                fix="a row trains at most once and in one split; give each row its own digest",
            )
        return order

    def _row(self, place: int) -> dict[str, Any]:
        run = next(n for n in range(len(self._starts) - 1) if place < self._starts[n + 1])
        found: dict[str, Any] = _RunReader(self._path(run)).rows(place - self._starts[run], 1).to_pylist()[0]
        return found

    def write(self, order: Any, target: Path) -> Counter[str]:
        """Merge the runs into the file of rows; rows per split and source."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        starts = np.array(self._starts)
        readers = [_RunReader(self._path(run)) for run in range(len(starts) - 1)]
        kinds = np.frombuffer(bytes(self._kinds), np.uint8)
        with pq.ParquetWriter(target, schema(), compression="zstd") as writer:
            for at in range(0, len(order), GROUP):
                places = order[at : at + GROUP]
                owner = np.searchsorted(starts, places, side="right") - 1
                where = np.empty(len(places), np.int64)
                pieces, before = [], 0
                for run in np.unique(owner):
                    own = places[owner == run] - starts[run]
                    # A run is sorted, so what it gives to this group lies together.
                    first, rows = int(own.min()), int(own.max() - own.min() + 1)
                    pieces.append(readers[run].rows(first, rows))
                    where[owner == run] = before + own - first
                    before += rows
                writer.write_table(pa.concat_tables(pieces).combine_chunks().take(where))
        counts = np.bincount(kinds[order], minlength=len(KINDS))
        return Counter({".".join(kind): int(n) for kind, n in zip(KINDS, counts, strict=True) if n})

    def remove(self) -> None:
        """Delete the runs."""
        shutil.rmtree(self._folder)


class _RunReader:
    """Slices of one run; reads `_PIECE` rows at a time and keeps the last piece."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._piece = -1
        self._batch: Any = None

    def rows(self, first: int, count: int) -> Any:
        """A Table of `count` rows from `first` on."""
        import pyarrow as pa

        found = []
        with pa.OSFile(str(self._path), "rb") as file:
            reader = pa.ipc.open_file(file)
            at = first
            while at < first + count:
                piece = at // _PIECE
                if piece != self._piece:
                    self._batch, self._piece = reader.get_batch(piece), piece
                take = min(first + count, (piece + 1) * _PIECE) - at
                found.append(self._batch.slice(at - piece * _PIECE, take))
                at += take
        return pa.Table.from_batches(found, schema())
