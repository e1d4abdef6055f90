"""Snapshots: immutable, content-addressed sets of teaching rows. The manifest is written last.

    root/<digest>/rows.parquet      digest, split, source, messages, completion, row_id, slice
    root/<digest>/manifest.json     a DatasetSnapshot; a folder without it is not a snapshot

The digest is over the canonical rows and what they mean (model, contract, base, replay), never over Parquet bytes, so
it is the same whatever the order of rows, the time zone or the version of the file format's library. Each row counts
as the digest of its canonical JSON, which includes its own salted digest: once a row is erased, its leaf says nothing.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import SnapshotError
from data_contracts.digests import digest
from data_contracts.records import DatasetSnapshot, Message, SnapshotRow

ROWS = "rows.parquet"
MANIFEST = "manifest.json"
FORMAT = 1
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
        leaf = digest(row)
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
    return digest(
        {
            "format": FORMAT,
            "model": model,
            "contract": contract_digest,
            "base": base_digest,
            "replay": dict(replay),
            "rows": sorted(leaf for leaf, _ in _ordered(rows)),
        }
    )


def _schema() -> Any:
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    names = ("digest", "split", "source", "completion", "row_id", "slice")
    return pa.schema([*(pa.field(name, pa.string()) for name in names), pa.field("messages", pa.list_(message))])


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(root: Path) -> None:
    """Remove unfinished folders that a killed process left an hour ago or earlier."""
    for folder in root.glob(f"{_TEMPORARY}*"):
        if time.time() - folder.stat().st_mtime > _STALE_S:
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

    ordered = [row for _, row in _ordered(rows)]
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
        row_ids=tuple(sorted({row.row_id for row in ordered if row.row_id})),
        replay=dict(replay),
    )
    temporary = root / f"{_TEMPORARY}{name[:16]}-{uuid.uuid4().hex}"
    temporary.mkdir()
    try:
        table = pa.Table.from_pylist([row.model_dump(mode="json") for row in ordered], schema=_schema())
        pq.write_table(table, temporary / ROWS)
        _fsync(temporary / ROWS)
        (temporary / MANIFEST).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        _fsync(temporary / MANIFEST)
        _fsync(temporary)
        try:
            temporary.rename(target)
        except OSError as error:
            # Another process published the same rows in between: theirs is ours.
            if not (target / MANIFEST).is_file():
                raise SnapshotError("a snapshot cannot be put in place", where=target, found=error) from error
        _fsync(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return read_manifest(target)


def read_manifest(path: Path | str) -> DatasetSnapshot:
    """The record of a snapshot; its `path` is where it was found.

    Raises:
        SnapshotError: no manifest (missing or unfinished), or one that does not parse.
    """
    folder = Path(path).resolve()
    if folder.name in (MANIFEST, ROWS):
        folder = folder.parent
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        record = DatasetSnapshot.model_validate_json(text)
    except FileNotFoundError as error:
        raise SnapshotError(
            "no snapshot here",
            where=folder,
            expected=f"a folder with {ROWS} and {MANIFEST}",
            found="nothing" if not folder.exists() else "no manifest: publishing did not finish",
            fix="run the retrain again; it publishes the same rows under the same digest",
        ) from error
    except (ValidationError, UnicodeDecodeError, OSError) as error:
        first = str(error).replace("\n", " ")[:300]
        raise SnapshotError("a snapshot's manifest cannot be read", where=folder / MANIFEST, found=first) from error
    return record.model_copy(update={"path": str(folder)})


def _load(folder: Path) -> list[SnapshotRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = pq.read_table(folder / ROWS, schema=_schema()).to_pylist()
        return [
            SnapshotRow(**{**row, "messages": tuple(Message(**message) for message in row["messages"])}) for row in data
        ]
    except (OSError, pa.ArrowException, ValidationError, TypeError, KeyError) as error:
        first = str(error).replace("\n", " ")[:300]
        raise SnapshotError("a snapshot's rows cannot be read", where=folder / ROWS, found=first) from error


def read_rows(path: Path | str, split: str | None = None, *, check: bool = True) -> list[SnapshotRow]:
    """The rows of a snapshot in its own order (split, source, digest).

    Args:
        path: the snapshot's folder.
        split: only rows of `train`, `target` or `incident`.
        check: compute the digest again and compare.

    Raises:
        SnapshotError: not a finished snapshot, unreadable, or not the rows its digest names.
    """
    record = read_manifest(path)
    rows = _load(Path(record.path))
    if check:
        _check(record, rows)
    return [row for row in rows if split is None or row.split == split]


def verify(path: Path | str) -> DatasetSnapshot:
    """Read everything and compare it with the digest, the counts and the ids of the manifest.

    Raises:
        SnapshotError: anything is missing or differs.
    """
    record = read_manifest(path)
    _check(record, _load(Path(record.path)))
    return record


def _check(record: DatasetSnapshot, rows: Sequence[SnapshotRow]) -> None:
    found = snapshot_digest(
        rows,
        model=record.model,
        contract_digest=record.contract_digest,
        base_digest=record.base_digest,
        replay=record.replay,
    )
    counts = dict(sorted(Counter(f"{row.split}.{row.source}" for row in rows).items()))
    ids = tuple(sorted({row.row_id for row in rows if row.row_id}))
    if found != record.digest or counts != record.counts or ids != record.row_ids:
        raise SnapshotError(
            "a snapshot does not match its digest",
            where=record.path,
            expected=record.digest,
            found=found if found != record.digest else "other counts or row ids than the manifest's",
            fix="do not train on it; delete the folder and run the retrain again",
        )
