"""Files and folders of them, anywhere fsspec reaches, as a source: JSON Lines, JSON arrays, CSV and Parquet.

The cursor is a ledger: for each file how many rows were read, and which file that was (`fsspec`'s key of its size,
inode and times, or its ETag). No date is compared, so a file that appears late with an old one is read like any other.
A file that has changed is read again from its beginning, and its rows are known by their ids; of JSON Lines that were
only appended to (the digest of what was read is still the same) just the new lines are. What is being written while
it is read is read again next time, and so is a packed file that is torn: it is named, and the others are read.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Literal

from configs.errors import InputError, SourceError
from data_contracts.sources import tables
from data_contracts.sources.base import BATCH_ROWS, DEFAULTS, Batch, Cursor, Defaults, RowError
from data_contracts.sources.formats.base import Format
from data_contracts.sources.formats.registry import FORMATS, detect
from data_contracts.sources.json_text import array_items, decode, text_lines
from data_contracts.sources.lines import Line, parse_line, size_of, to_batch

Container = Literal["auto", "jsonl", "json", "csv", "parquet"]
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
BATCH_SIZE = 16 * 1024 * 1024
"""Characters after which a batch is passed on, however few rows they are."""
SETTLED_S = 2.0
"""A file that changed less than this before it was read is looked at again."""
_LOOK, _LOOK_AT = 20, 2000
"""Rows the format is recognised by, and how many are read to find as many good ones."""
_BLANK = b"\xef\xbb\xbf \t\r\n"
_UNFINISHED = "the last line is not finished; it is read again when the file has changed"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
"""What a torn packed file raises: no outage, it alone cannot be read."""


@dataclass
class _Place:
    """How far one file was read. `key` names the file as it was; `sha` is of the first `offset` bytes."""

    key: str = ""
    rows: int = 0
    line: int = 0
    offset: int = 0
    sha: str = ""
    done: bool = False

    def as_json(self) -> list[Any]:
        return [self.key, self.rows, self.line, self.offset, self.sha, self.done]


@dataclass
class _Pending:
    """What goes into the next batch."""

    lines: list[tuple[str, int, Line]] = field(default_factory=list)
    errors: list[RowError] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    size: int = 0
    """Characters."""

    def __bool__(self) -> bool:
        return bool(self.rows or self.errors or self.skipped)

    def take(self, cursor: Cursor) -> Batch:
        batch = Batch(to_batch(self.lines), cursor, tuple(self.errors), dict(self.skipped))
        self.lines, self.errors, self.skipped, self.rows, self.size = [], [], Counter(), 0, 0
        return batch


@dataclass(frozen=True)
class FileSource:
    """One file, a glob, or all files below a folder (those of a known suffix, none that begins with `.` or `_`)."""

    url: str
    """A path or a URL of fsspec, for example `memory://in/*.jsonl`."""
    format: str = "auto"
    container: Container = "auto"
    defaults: Defaults = DEFAULTS
    follow: bool = False
    """True where the files are read again and again: a folder may be empty, a last line unfinished."""
    batch_rows: int = BATCH_ROWS

    @property
    def name(self) -> str:
        kind = self.container if self.format == "auto" else self.format
        return f"{kind}:{re.sub('//[^/@]*@', '//***@', self.url)}"

    def read(self, cursor: Cursor | None = None) -> Iterator[Batch]:
        """Rows of files that are new, longer or changed, in order of their names.

        Raises:
            InputError, SourceError: as the seam says; what was read before is passed on first.
        """
        known = {path: _Place(*entry) for path, entry in (cursor or {}).get("files", {}).items()}
        found = self._files()
        # A file that went away is forgotten: should it come back, its rows are known by their ids.
        ledger = {path: known[path] for path in found if path in known}
        pending = _Pending()
        try:
            for path in found:
                place = ledger.setdefault(path, _Place())
                for full in self._new_in(path, place, pending, len(found) == 1):
                    if full:
                        yield pending.take(_as_cursor(ledger))
        except (InputError, SourceError):
            if pending:
                yield pending.take(_as_cursor(ledger))
            raise
        if pending or _as_cursor(ledger) != (cursor or {}):
            yield pending.take(_as_cursor(ledger))

    def _new_in(self, path: str, place: _Place, pending: _Pending, alone: bool) -> Iterator[bool]:
        """Fill `pending` from one file, if it is new or changed; yields True whenever it is full."""
        key = self._ask(lambda: file_key(self._fs, path), path)
        if place.done and place.key == key:
            return
        try:
            yield from self._file(path, key, place, pending, alone)
        except _DAMAGED as error:
            if alone:
                raise self._gone(error, path) from error
            place.done = False
            found = InputError("the file is damaged or not finished", found=type(error).__name__)
            pending.errors.append(RowError.of(path, 0, found))
        except OSError as error:
            raise self._gone(error, path) from error
        else:
            place.done = True

    # --- which files ------------------------------------------------------------------------------

    @property
    def _fs(self) -> Any:
        import fsspec

        return fsspec.core.url_to_fs(self.url)[0]

    def _files(self) -> list[str]:
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise InputError("the address cannot be used", where=self.url, found=error) from error
        if {"http", "https"} & set(_protocols(fs)):
            # A web server says neither what there is nor reliably whether it has changed.
            raise InputError("pages of a web server are no source", where=self.url, fix="download the file first")
        if "file" not in _protocols(fs):
            fs.invalidate_cache()
        if self._ask(lambda: fs.isdir(path), self.url):
            wanted = {"csv", "parquet"} & {self.container} or set(SUFFIXES.values())
            below = self._ask(lambda: fs.find(path), self.url)
            found = [f for f in below if _suffix(f) in wanted and not _hidden(f, path)]
        elif self._ask(lambda: fs.exists(path), self.url):
            return [path]
        else:
            found = self._ask(lambda: fs.glob(path), self.url) if any(mark in path for mark in "*?[") else []
        if not found and not self.follow:
            raise InputError("the file cannot be read", where=self.url, found="no such file, or a folder without any")
        return sorted(found)

    def _ask(self, question: Any, where: str) -> Any:
        try:
            return question()
        except Exception as error:
            # A file system of somebody else's: each has errors of its own for being down.
            raise self._gone(error, where) from error

    def _gone(self, error: Exception, where: str) -> InputError | SourceError:
        found = getattr(error, "strerror", None) or type(error).__name__
        if self.follow:
            return SourceError("the files cannot be read now", where=where, found=found)
        return InputError("the file cannot be read", where=where, found=found)

    # --- one file ---------------------------------------------------------------------------------

    def _file(self, path: str, key: str, place: _Place, pending: _Pending, alone: bool) -> Iterator[bool]:
        """Fill `pending` with a file's rows; yields True whenever it is full and `place` says how far that is."""
        try:
            form = FORMATS.get(self.format) or self._recognise(path)
        except InputError as error:
            if alone and not self.follow:
                raise
            place.key = key
            pending.errors.append(RowError.of(path, 0, error))
            return
        with self._open(path) as handle:
            for number, row in self._records(self._container(path, handle), handle, key, place):
                self._add(path, number, row, form, pending)
                yield pending.rows >= self.batch_rows or pending.size >= BATCH_SIZE

    def _recognise(self, path: str) -> Format:
        with self._open(path) as handle:
            records = self._records(self._container(path, handle), handle, "", _Place())
            rows = (row for _, row in itertools.islice(records, _LOOK_AT) if isinstance(row, Mapping))
            first = list(itertools.islice(rows, _LOOK))
        # Nothing to recognise: an empty file, or bad rows only, which speak for themselves.
        return detect(first, path) if first else FORMATS["jsonl"]

    def _open(self, path: str) -> Any:
        from fsspec.core import OpenFile

        return OpenFile(self._fs, path, "rb", compression="gzip" if path.endswith(".gz") else None)

    def _container(self, path: str, handle: BinaryIO) -> str:
        if self.container != "auto":
            return self.container
        kind = _suffix(path)
        if kind in ("csv", "parquet", "jsonl"):
            return kind
        # `.json` may be an array or lines, and anything without a suffix may be all of them.
        start = handle.read(4096).lstrip(_BLANK)
        handle.seek(0)
        if start.startswith(b"PAR1"):
            return "parquet"
        return "json" if start.startswith(b"[") else "jsonl"

    def _records(
        self, container: str, handle: BinaryIO, key: str, place: _Place
    ) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
        """`(line, row)` after what was read before; `place` moves along."""
        if container == "jsonl":
            sha = _resume(handle, place)
            place.key, place.done = key, False
            yield from _json_lines(handle, sha, place, self.follow)
            return
        skip = place.rows if place.key == key and not place.done else 0
        place.key, place.rows, place.done = key, 0, False
        if container == "parquet":
            rows = tables.parquet_rows(handle)
        else:
            rows = array_items(handle) if container == "json" else tables.csv_rows(handle)
        try:
            for number, row in rows:
                place.rows += 1
                if place.rows > skip:
                    yield number, row
        except InputError as error:
            yield 0, error

    def _add(self, path: str, number: int, row: Any, form: Format, pending: _Pending) -> None:
        pending.rows += 1
        try:
            if isinstance(row, InputError):
                raise row
            for raw in form.parse(row):
                pending.skipped.update(raw.pop("skipped", ()))
                if not raw:
                    continue
                source = form.name if form.name not in ("jsonl", "flat") else self.defaults.source
                defaults = replace(self.defaults, source=source)
                line = parse_line(raw, defaults, nested="interaction" in row)
                pending.lines.append((path, number, line))
                pending.rows += max(len(line.feedback) - 1, 0)
                pending.size += size_of(line.interaction) * max(len(line.feedback), 1)
        except InputError as error:
            pending.errors.append(RowError.of(path, number, error))
        except RecursionError:
            pending.errors.append(RowError.of(path, number, InputError("nested too deeply")))


def _as_cursor(ledger: Mapping[str, _Place]) -> Cursor:
    return {"files": {path: place.as_json() for path, place in ledger.items() if place.key}}


def file_key(fs: Any, path: str) -> str:
    """Another one when the file has changed."""
    changed = fs.info(path).get("created")  # of a local file, the time its content or name last changed
    key = str(fs.ukey(path))[:24]
    if isinstance(changed, float) and time.time() - changed < SETTLED_S:
        # Clocks of file systems tick in milliseconds: a change right after this one may leave the same key.
        return f"fresh-{time.time_ns()}"
    return key


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _suffix(path: str) -> str:
    name = path.removesuffix(".gz").lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), "")


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.removeprefix(root).split("/"))


def _resume(handle: BinaryIO, place: _Place) -> Any:
    """Move behind the lines that were read, if they still are what they were, else to the beginning.

    Returns:
        the SHA-256 of what is before.
    """
    sha, left = hashlib.sha256(), place.offset
    while left and (block := handle.read(min(left, 1 << 20))):
        sha.update(block)
        left -= len(block)
    if left or (place.offset and sha.hexdigest()[:32] != place.sha):
        handle.seek(0)
        place.offset = place.line = place.rows = 0
        return hashlib.sha256()
    return sha


def _json_lines(
    handle: BinaryIO, sha: Any, place: _Place, follow: bool
) -> Iterator[tuple[int, dict[str, Any] | InputError]]:
    before = sha.hexdigest()[:32]
    for size, raw in text_lines(handle, sha.update):
        row: dict[str, Any] | InputError | None = None
        if raw is None or raw.strip(_BLANK):
            try:
                row = decode(raw)
            except InputError as error:
                row = error
        if follow and isinstance(row, InputError) and raw is not None and not raw.endswith(b"\n"):
            place.sha = before
            yield place.line + 1, InputError(_UNFINISHED)
            return
        place.offset += size
        place.line += 1
        place.rows += 1
        place.sha = before = sha.hexdigest()[:32]
        if row is not None:
            yield place.line, row
