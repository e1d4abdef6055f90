"""Interactions and feedback for the tests of sources, as records and as strategies."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import fsspec
from hypothesis import strategies as st

from data_contracts.records import Feedback, FeedbackKind, Interaction, Message
from data_contracts.sources.base import Batch, Cursor, RowError, Source
from data_contracts.sources.formats.registry import FORMATS
from data_contracts.sources.tables import CsvWriter, ParquetWriter

KEY = b"k" * 32
MODEL = "support-bot"
_folders = itertools.count(1)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
WORDS = TEXT.filter(str.strip)
# What spreadsheets run, what JSON and CSV quote, and what looks like a column of theirs.
NASTY = st.sampled_from(
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "'=x",
        "''-x",
        "@SUM(A1)",
        "\t=x",
        "\r=x",
        '"',
        "a,b\nc",
        "[1]",
        '{"a": 1}',
        "＝x",
        "'",
    ]
)
TIMES = st.datetimes(datetime(2001, 1, 1), datetime(2036, 1, 1)).map(lambda t: t.replace(tzinfo=UTC))
NAMES = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
ANY = st.one_of(WORDS, NASTY)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Message, ...]:
    """Question, answer, ..., question; sometimes with a system message."""
    turns = draw(st.lists(ANY, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1))
    said = [Message(role="user" if n % 2 == 0 else "assistant", content=text) for n, text in enumerate(turns)]
    if draw(st.booleans()):
        said.insert(0, Message(role="system", content=draw(ANY)))
    return tuple(said)


@st.composite
def spoken(draw: st.DrawFn, kinds: Sequence[FeedbackKind]) -> tuple[Interaction, list[Feedback]]:
    """An interaction and feedback of the given kinds on it."""
    n = next(_folders)
    interaction = Interaction(
        id=f"i{n}",
        created_at=draw(TIMES),
        model=MODEL,
        principal=draw(NAMES),
        conversation=f"c{n}",
        messages=draw(conversations()),
        answer=draw(ANY),
        tokens_in=draw(st.integers(0, 2**31 - 1)),
        cost_microdollars=draw(st.integers(0, 2**63 - 1)),
        arm_share=draw(st.floats(0, 1)),
        flags=tuple(draw(st.lists(st.sampled_from(["refusal", "a,b"]), max_size=2))),
    )
    said = []
    for k, kind in enumerate(draw(st.lists(st.sampled_from(list(kinds)), max_size=3))):
        needs: dict[str, Any] = {
            FeedbackKind.THUMB: {"thumb": draw(st.sampled_from([-1, 1]))},
            FeedbackKind.RATING: {"rating": draw(st.integers(1, 5))},
            FeedbackKind.INCIDENT: {"label": draw(NAMES)},
        }.get(kind, {"text": draw(ANY)})
        if kind is FeedbackKind.PREFERENCE:
            needs["rejected"] = draw(ANY)
        said.append(
            Feedback.model_validate(
                {
                    "id": f"f{n}-{k}",
                    "interaction_id": interaction.id,
                    "kind": kind,
                    "created_at": draw(TIMES),
                    "principal": draw(NAMES),
                    "scope": draw(st.sampled_from(["user", "review"])),
                    "source": "api",
                    **needs,
                }
            )
        )
    return interaction, said


def memory_file(name: str, body: bytes) -> str:
    """A file nobody else has, in fsspec's memory: its URL."""
    path = f"/t{next(_folders)}/{name}"
    fsspec.filesystem("memory").pipe(path, body)
    return f"memory:/{path}"


def written(format: str, pairs: Iterable[tuple[Interaction, list[Feedback]]], kind: FeedbackKind) -> str:
    """Some interactions as a file of a format: its URL."""
    form = FORMATS["flat" if format in ("csv", "parquet") else format]
    rows = [row for interaction, said in pairs for row in form.render(interaction, said, kind).rows]
    if format in ("csv", "parquet"):
        url = memory_file(f"x.{format}", b"")
        with fsspec.open(url, "wb") as handle:
            writer = CsvWriter(handle) if format == "csv" else ParquetWriter(handle)
            for row in rows:
                writer.write(row)
            writer.close()
        return url
    if form.container == "json":
        return memory_file("x.json", json.dumps(rows, ensure_ascii=False, indent=1).encode())
    return memory_file("x.jsonl", b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


def read_all(source: Source, cursor: Cursor | None = None) -> tuple[list[dict[str, Any]], list[RowError], Cursor]:
    """`(rows, errors, last cursor)` of a source."""
    batches = list(source.read(cursor))
    return rows_of(batches), [e for b in batches for e in b.errors], (batches[-1].cursor if batches else cursor or {})


def rows_of(batches: Iterable[Batch]) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.rows.to_pylist()]
