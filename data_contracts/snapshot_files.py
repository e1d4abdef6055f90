"""What lies in a snapshot's folder: the columns, the leaf of a row, the manifest, reading both as one.

    root/<digest>/rows.parquet      digest, split, source, completion, row_id, slice, rejected, label, messages, leaf
    root/<digest>/manifest.json     a DatasetSnapshot; it names the file of rows, and is always the last thing written

`rejected` and `label` are null where a row has none, and missing in files from before they were kept.

A row's leaf is SHA-256 of its canonical JSON, which holds the row's salted digest. A *tombstone* is a leaf with every
other column null: what is left of an erased row. Nobody can guess a text and check it against a leaf, because the
salted digest inside is 256 bits that were derived from a salt and are deleted with it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from configs.errors import SnapshotError
from data_contracts.digests import canonical_json
from data_contracts.records import OPTIONAL_COLUMNS, DatasetSnapshot, Message, SnapshotRow
from data_contracts.snapshot_sets import IdSet, LeafSet

ROWS = "rows.parquet"
MANIFEST = "manifest.json"
DERIVED = "arrow"
"""Folder beside the rows for files made from them; erased with them."""
FORMAT = 1
BATCH = 4096
GROUP = 16_384
"""Rows of a Parquet row group."""
COLUMNS = ("digest", "split", "source", "completion", "row_id", "slice")
ROW_IDS_INLINE = 10_000
"""Up to so many feedback ids stand in the manifest; with more, their number and digest do."""
_FIX = "do not train on it; delete the folder and run the retrain again"


class Entry(NamedTuple):
    """One line of the file: a row's columns with its leaf, or (`columns` None) the tombstone of one."""

    leaf: str
    columns: dict[str, Any] | None


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def columns_of(row: SnapshotRow) -> dict[str, Any]:
    """A row as the columns of the file, without its leaf."""
    data: dict[str, Any] = {name: getattr(row, name) for name in (*COLUMNS, *OPTIONAL_COLUMNS)}
    data["messages"] = [{"role": message.role, "content": message.content} for message in row.messages]
    return data


def leaf_of(columns: Mapping[str, Any]) -> str:
    """The leaf of a row: `digest(row)`, SHA-256 of its canonical JSON with its own salted digest, but faster."""
    absent = {name for name in OPTIONAL_COLUMNS if columns.get(name, "") is None}
    if absent:
        columns = {name: value for name, value in columns.items() if name not in absent}
    return hashlib.sha256(_ENCODER.encode(columns).encode("utf-8")).hexdigest()


def name_of(leaves: LeafSet, *, model: str, contract_digest: str, base_digest: str, replay: Mapping[str, str]) -> str:
    """The digest of {base, contract, format, model, replay, rows: sorted leaves}, without building that object."""
    facts = {"base": base_digest, "contract": contract_digest, "format": FORMAT, "model": model}
    head = canonical_json({**facts, "replay": dict(replay), "rows": []})
    # `rows` is the last key in order, so what is still to come stands before the closing `]}`.
    sha = hashlib.sha256(head[:-2])
    first = True
    for part in leaves.sorted_parts():
        sha.update((b"" if first else b",") + b",".join(b'"' + leaf.hex().encode() + b'"' for leaf in part))
        first = False
    sha.update(b"]}")
    return sha.hexdigest()


def schema() -> Any:
    """Arrow schema of the file of rows."""
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    texts = [pa.field(name, pa.string()) for name in (*COLUMNS, "rejected")]
    rest = [pa.field("label", pa.int8()), pa.field("messages", pa.list_(message)), pa.field("leaf", pa.string())]
    return pa.schema([*texts, *rest])


def completed(batch: Any) -> Any:
    """A RecordBatch of rows with the columns of `schema`, those of before `rejected` and `label` with nulls."""
    import pyarrow as pa

    for field in schema():
        if field.name in OPTIONAL_COLUMNS and field.name not in batch.schema.names:
            batch = batch.append_column(field.name, pa.nulls(len(batch), field.type))
    return batch.select(schema().names).cast(schema())


def fsync(path: Path) -> None:
    """Make a file or a folder's entries durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One writer at a time inside a snapshot's folder; readers need no lock. A killed process lets go."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise SnapshotError("no snapshot here", where=folder, found=error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_manifest(folder: Path, record: DatasetSnapshot) -> None:
    """Put the manifest in place in one step: a reader sees the old or the new."""
    temporary = folder / f".{MANIFEST}-{os.getpid()}"
    temporary.write_text(record.model_copy(update={"path": ""}).model_dump_json(indent=1) + "\n", encoding="utf-8")
    fsync(temporary)
    temporary.replace(folder / MANIFEST)
    fsync(folder)


def folder_of(path: Path | str) -> Path:
    """A snapshot's folder, given it or one of its files."""
    folder = Path(path).resolve()
    return folder.parent if folder.name == MANIFEST or folder.suffix == ".parquet" else folder


def read_manifest(path: Path | str) -> DatasetSnapshot:
    """The record of a snapshot; its `path` is where it was found.

    Raises:
        SnapshotError: no manifest (missing or unfinished), or one that does not parse.
    """
    folder = folder_of(path)
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


@contextmanager
def opened(path: Path | str) -> Iterator[tuple[DatasetSnapshot, Any]]:
    """(manifest, pyarrow ParquetFile) that belong together, also while rows are being erased.

    Raises:
        SnapshotError: not a finished snapshot, or its rows cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    record = read_manifest(path)
    while True:
        file = Path(record.path) / record.rows_file
        try:
            handle = file.open("rb")
            break
        except OSError as error:
            # The rows were replaced between our two reads: the manifest has another name by now.
            again = read_manifest(record.path)
            if again.rows_file == record.rows_file:
                raise SnapshotError("a snapshot's rows cannot be read", where=file, found=error, fix=_FIX) from error
            record = again
    with handle:
        try:
            yield record, pq.ParquetFile(handle)
        except (OSError, pa.ArrowException, ValueError, TypeError, KeyError) as error:
            first = str(error).replace("\n", " ")[:300]
            raise SnapshotError("a snapshot's rows cannot be read", where=file, found=first, fix=_FIX) from error


def entries(file: Any) -> Iterator[list[Entry]]:
    """The lines of a ParquetFile in batches. Leaves of rows are computed, those of tombstones read."""
    for batch in file.iter_batches(BATCH):
        yield [entry_of(data) for data in batch.to_pylist()]


def entry_of(data: dict[str, Any]) -> Entry:
    """One line from its columns; files from before tombstones have no column `leaf`."""
    leaf = data.pop("leaf", None)
    if data["digest"] is None and leaf is not None:
        return Entry(leaf, None)
    return Entry(leaf_of(data), data)


def row_of(columns: Mapping[str, Any]) -> SnapshotRow:
    """The row of some columns."""
    return SnapshotRow(**{**columns, "messages": tuple(Message(**message) for message in columns["messages"])})


class Tally:
    """What a manifest says of its rows, counted from the rows."""

    def __init__(self) -> None:
        self.leaves = LeafSet()
        self.counts: Counter[str] = Counter()
        self.row_ids = IdSet()
        self.erased = 0

    def add(self, entry: Entry) -> None:
        """Count one line."""
        self.leaves.add(entry.leaf)
        if entry.columns is None:
            self.erased += 1
            return
        self.counts[f"{entry.columns['split']}.{entry.columns['source']}"] += 1
        self.row_ids.add(entry.columns["row_id"])

    def differs(self, record: DatasetSnapshot) -> str:
        """What does not fit the manifest; empty if all does. Counts are as published, rows erased since included."""
        found = name_of(
            self.leaves,
            model=record.model,
            contract_digest=record.contract_digest,
            base_digest=record.base_digest,
            replay=record.replay,
        )
        if found != record.digest:
            return found
        missing = {kind: n - self.counts[kind] for kind, n in record.counts.items()}
        whole = self.counts.keys() <= record.counts.keys() and min(missing.values(), default=0) >= 0
        if not whole or sum(missing.values()) != self.erased or self.erased != record.erased:
            return "other counts than the manifest's"
        ids = self.row_ids.facts(ROW_IDS_INLINE)
        same = all(getattr(record, name) == value for name, value in ids.items())
        # Manifests from before these facts were kept have the ids alone.
        old = record.row_ids_digest == "" and ids["row_ids"] == record.row_ids
        return "" if same or old else "other row ids than the manifest's"


def check(record: DatasetSnapshot, tally: Tally) -> None:
    """Raise SnapshotError if the rows are not those the manifest names."""
    found = tally.differs(record)
    if found:
        raise SnapshotError(
            "a snapshot does not match its digest", where=record.path, expected=record.digest, found=found, fix=_FIX
        )
