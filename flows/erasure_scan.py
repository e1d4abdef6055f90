"""Looking for what is left of a person: tables, files below the state directory, exports, MLflow and Prefect.

A finding names the place and which needle it was, never the text. The name counts where it stands alone (`ann` is not
found in `cannot`), a distinctive text wherever it stands, also as JSON or HTML would write it.
"""

from __future__ import annotations

import html
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text

from configs.errors import InputError, RegistryError
from flows.context import Context
from registry_hooks.registry import Registry
from store import erasure
from store.engine import Store

_BLOCK = 1 << 22
MIN_TEXT = 8
"""Shorter texts are found everywhere and prove nothing."""
KEPT_THERE = {
    "mlflow": "runs, parameters, tags, artifacts and model versions",
    "prefect": "flow runs, task runs, logs and artifacts",
}
_ARCHIVES = (".npz", ".zip")


@dataclass(frozen=True)
class Finding:
    """One place that holds one needle."""

    place: str
    """`store TABLE`, `file PATH`, `export PATH`, `mlflow ...` or `prefect ...`."""
    needle: str
    """`name`, or `text N` (the line of the text file)."""


@dataclass(frozen=True)
class Scan:
    """What was looked at and what was found."""

    findings: tuple[Finding, ...]
    rows: int
    files: int
    bytes: int
    pieces: int
    """Things read from MLflow and Prefect."""
    skipped: tuple[str, ...]
    """Places that could not be looked at, with the reason."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "found": len(self.findings),
            "findings": [vars(finding) for finding in self.findings],
            "rows": self.rows,
            "files": self.files,
            "bytes": self.bytes,
            "pieces": self.pieces,
            "skipped": list(self.skipped),
        }


class Needles:
    """Compiled needles; `in_bytes` says which of them a piece holds."""

    def __init__(self, name: str, texts: Sequence[str]) -> None:
        short = [place for place, one in enumerate(texts, 1) if len(one) < MIN_TEXT]
        if short:
            raise InputError(
                "a text is too short to be distinctive",
                where=f"line {short[0]} of the text file",
                expected=f"at least {MIN_TEXT} characters",
            )
        boundary = rb"(?<![A-Za-z0-9_])(?:%b)(?![A-Za-z0-9_])"
        self._patterns = [("name", re.compile(boundary % b"|".join(map(re.escape, _spellings(name)))))]
        for place, one in enumerate(texts, 1):
            self._patterns.append((f"text {place}", re.compile(b"|".join(map(re.escape, _spellings(one))))))
        self.longest = max(len(s) for one in (name, *texts) for s in _spellings(one)) + 1

    def in_bytes(self, content: bytes) -> set[str]:
        """Names of the needles found."""
        return {needle for needle, pattern in self._patterns if pattern.search(content)}


def _spellings(value: str) -> list[bytes]:
    """As UTF-8, as JSON with and without escapes, as HTML."""
    forms = (
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        html.escape(value),
        html.escape(value, quote=False),
        repr(value)[1:-1],
    )
    return [form.encode("utf-8", "surrogatepass") for form in dict.fromkeys(forms)]


def scan(context: Context, name: str, texts: Sequence[str], *, prefect_url: str | None = None) -> Scan:
    """Look everywhere.

    Args:
        context: the installation.
        name: the person's name, exactly as in their requests.
        texts: distinctive texts of theirs.
        prefect_url: the Prefect API to ask; None leaves it out.

    Raises:
        InputError: an empty name, or a text too short.
    """
    if not name.strip():
        raise InputError("there is no name to look for", where="principal")
    needles = Needles(name, texts)
    found: list[Finding] = []
    rows = scan_store(context.store, needles, found)
    files, size = scan_files(context.state.root, needles, found)
    skipped: list[str] = []
    more, more_size = scan_exports(context, needles, found, skipped)
    files, size = files + more, size + more_size
    pieces = 0
    for what, walk in (("mlflow", _registry(context.registry)), ("prefect", _prefect(prefect_url))):
        if isinstance(walk, str):
            skipped.append(f"{what}: {walk}, so its {KEPT_THERE[what]} were not searched")
            continue
        before = pieces
        try:
            for where, content in walk:
                pieces += 1
                found += [Finding(f"{what} {where}", needle) for needle in sorted(needles.in_bytes(content))]
        except RegistryError as error:
            place = f" at {error.where}" if error.where else ""
            which = "not all of its" if pieces > before else "none of its"
            skipped.append(f"{what}: {error.message}{place}, so {which} {KEPT_THERE[what]} were searched")
    return Scan(tuple(dict.fromkeys(found)), rows, files, size, pieces, tuple(skipped))


def _registry(registry: Registry) -> Iterator[tuple[str, bytes]]:
    return registry.contents()


def _prefect(url: str | None) -> Iterator[tuple[str, bytes]] | str:
    if url is None:
        return "no API URL is known (set $PREFECT_API_URL or stack.prefect_url)"
    from flows.prefect_contents import contents

    return contents(url)


# --- tables ------------------------------------------------------------------------------------------


def scan_store(store: Store, needles: Needles, found: list[Finding]) -> int:
    """Every row of every table, also tables this version does not know; returns the number of rows."""
    rows = 0
    with store.read() as conn:
        for table in sorted(inspect(conn).get_table_names()):
            quoted = conn.dialect.identifier_preparer.quote(table)
            result = conn.execution_options(stream_results=True).execute(text(f"SELECT * FROM {quoted}"))  # noqa: S608
            hit: set[str] = set()
            for row in result:
                rows += 1
                line = "\n".join(_as_text(value) for value in row)
                hit |= needles.in_bytes(line.encode("utf-8", "surrogatepass"))
            found += [Finding(f"store {table}", needle) for needle in sorted(hit)]
    return rows


def _as_text(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


# --- files -------------------------------------------------------------------------------------------


def scan_files(root: Path, needles: Needles, found: list[Finding]) -> tuple[int, int]:
    """Raw bytes and names of every file; Parquet and archives unpacked as well. Returns (files, bytes)."""
    files = size = 0
    for path in sorted(root.rglob("*")):
        try:
            if path.is_symlink() or not path.is_file():
                continue
            files += 1
            size += path.stat().st_size
            where = path.relative_to(root).as_posix()
            hit = needles.in_bytes(where.encode("utf-8", "surrogatepass"))
            for piece in _pieces(path, needles.longest):
                hit |= needles.in_bytes(piece)
        except FileNotFoundError:
            continue  # tolerated: a running stack removes its temporary files
        found += [Finding(f"file {where}", needle) for needle in sorted(hit)]
    return files, size


def scan_exports(context: Context, needles: Needles, found: list[Finding], skipped: list[str]) -> tuple[int, int]:
    """Exports still where they were written; a URL or a file that cannot be read is `skipped`. As `scan_files`."""
    files = size = 0
    with context.store.read() as conn:
        known = erasure.known_exports(conn)
    for name in known:
        path = Path(name)
        if "://" in name:
            skipped.append(f"export {name}: not a local file")
            continue
        try:
            if not path.is_file() or path.is_relative_to(context.state.root.resolve()):
                continue
            hit = needles.in_bytes(name.encode("utf-8", "surrogatepass"))
            for piece in _pieces(path, needles.longest):
                hit |= needles.in_bytes(piece)
            files += 1
            size += path.stat().st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            skipped.append(f"export {name}: {type(error).__name__}")
            continue
        found += [Finding(f"export {name}", needle) for needle in sorted(hit)]
    return files, size


def _pieces(path: Path, overlap: int) -> Iterator[bytes]:
    with path.open("rb") as handle:
        rest = b""
        while block := handle.read(_BLOCK):
            yield rest + block
            rest = block[-overlap:]
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix in _ARCHIVES and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name)


def _parquet(path: Path) -> Iterable[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(batch_size=4096):
            yield json.dumps(batch.to_pylist(), ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
    except (OSError, pa.ArrowException):
        return  # damaged: its raw bytes were looked at
