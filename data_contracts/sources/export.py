"""What is in the store as a file of a format; the file appears whole or not at all.

What a format cannot hold is left out, and the report says how much and why.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import Format
from data_contracts.sources.formats.registry import FORMATS, NAMES
from data_contracts.sources.tables import CsvWriter, ParquetWriter
from store import interactions, joined
from store.engine import Store

PAGE = 500
EXPORTS = (*NAMES, "parquet", "csv")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what it left out."""

    rows: int
    left_out: dict[str, int]
    """Pieces of feedback, and interactions without any, by reason."""


class _Writer(Protocol):
    def write(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class _Lines:
    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle

    def write(self, row: Mapping[str, Any]) -> None:
        self._handle.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        pass


class _Array:
    """A JSON array, an item a line."""

    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._before = b"[\n"

    def write(self, row: Mapping[str, Any]) -> None:
        self._handle.write(self._before + json.dumps(row, ensure_ascii=False).encode())
        self._before = b",\n"

    def close(self) -> None:
        self._handle.write(b"\n]\n" if self._before == b",\n" else b"[]\n")


def export(
    store: Store,
    model: str,
    out: str,
    *,
    format: str = "jsonl",
    kind: FeedbackKind | None = None,
    since: datetime | None = None,
) -> ExportReport:
    """Write a model's interactions and feedback, oldest first.

    Args:
        store: from where.
        model: the product model's name.
        out: a path or a URL of fsspec.
        format: one of `EXPORTS`.
        kind: only feedback of this kind; formats whose files hold one kind write corrections by default.
        since: only what was said (or asked, where nothing was said) since.

    Raises:
        InputError: no such format, the format cannot hold the kind, or the file cannot be written.
    """
    form = FORMATS.get("flat" if format in ("parquet", "csv") else format)
    if format not in EXPORTS or form is None:
        raise InputError("no such format", where="--format", expected=", ".join(EXPORTS), found=format)
    if kind is not None and kind not in form.holds:
        held = ", ".join(k.value for k in form.holds)
        raise InputError(f"{format} holds no {kind.value}", where="--kind", expected=held, found=kind.value)
    left_out: Counter[str] = Counter()
    rows = 0
    with _whole(out) as handle:
        writer = _writer(format, form, handle)
        for interaction, said in _chosen(store, model, kind, since, form, left_out):
            rendered = form.render(interaction, said, kind or FeedbackKind.CORRECTION)
            left_out.update(rendered.left_out)
            for row in rendered.rows:
                writer.write(row)
            rows += len(rendered.rows)
        writer.close()
    return ExportReport(rows, {reason: n for reason, n in sorted(left_out.items()) if n})


def _writer(format: str, form: Format, handle: BinaryIO) -> _Writer:
    if format == "parquet":
        return ParquetWriter(handle)
    if format == "csv":
        return CsvWriter(handle)
    return _Array(handle) if form.container == "json" else _Lines(handle)


def _chosen(
    store: Store, model: str, kind: FeedbackKind | None, since: datetime | None, form: Format, left_out: Counter[str]
) -> Iterator[tuple[Interaction, list[Feedback]]]:
    for interaction, every in stored(store, model):
        said = [f for f in every if (kind is None or f.kind is kind) and (since is None or f.created_at >= since)]
        if said:
            yield interaction, said
        elif not every and kind is None and (since is None or interaction.created_at >= since):
            if form.bare:
                yield interaction, []
            else:
                left_out[f"{form.name}: interactions nobody said anything of"] += 1


def stored(store: Store, model: str) -> Iterator[tuple[Interaction, list[Feedback]]]:
    """A model's interactions with their feedback, in order of commits, a page in memory at a time."""
    seq = 0
    while True:
        with store.read() as conn:
            page = interactions.since(conn, model, seq, PAGE)
            said = joined.of_interactions(conn, [interaction.id for _, interaction in page])
        if not page:
            return
        yield from ((interaction, said.get(interaction.id, [])) for _, interaction in page)
        seq = page[-1][0]


@contextlib.contextmanager
def _whole(out: str) -> Iterator[BinaryIO]:
    """A file that takes its name only when all of it is written."""
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(out)
    except (ValueError, ImportError) as error:
        raise InputError("the address cannot be used", where=out, found=error) from error
    head, _, name = path.rpartition("/")
    temporary = f"{head}/.{name}.{uuid.uuid4().hex}.tmp" if head or path.startswith("/") else f".{name}.tmp"
    try:
        if head:
            fs.makedirs(head, exist_ok=True)
        with fs.open(temporary, "wb") as handle:
            yield handle
            handle.flush()
            if _is_local(fs):
                os.fsync(handle.fileno())
        if _is_local(fs):
            Path(temporary).replace(path)
        else:
            fs.mv(temporary, path)
    except OSError as error:
        raise InputError("the file cannot be written", where=out, found=error.strerror or error) from error
    finally:
        with contextlib.suppress(OSError):
            if fs.exists(temporary):
                fs.rm(temporary)


def _is_local(fs: Any) -> bool:
    protocol = fs.protocol if isinstance(fs.protocol, (tuple, list)) else (fs.protocol,)
    return "file" in protocol
