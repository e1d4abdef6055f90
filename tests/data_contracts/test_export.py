"""Exports: whole or not at all, what a format cannot hold is counted, and what comes out goes in again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from source_samples import KEY, MODEL, read_all

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message
from data_contracts.sources.base import MemorySource
from data_contracts.sources.export import EXPORTS, ExportReport, export, stored
from data_contracts.sources.files import FileSource
from data_contracts.sources.ingest import ingest
from data_contracts.sources.store_source import as_line
from store.engine import Store

K = FeedbackKind
START = datetime(2026, 1, 1, tzinfo=UTC)


def a_pair(n: int, *kinds: FeedbackKind) -> tuple[Interaction, list[Feedback]]:
    at = START + timedelta(days=n)
    interaction = Interaction(
        id=f"i{n}", created_at=at, model=MODEL, principal="ann", conversation=f"c{n}", answer="At ten.",
        messages=(Message(role="user", content=f"When do you open, case {n}?"),),
    )  # fmt: skip
    needs = {
        K.THUMB: {"thumb": 1}, K.RATING: {"rating": 4}, K.INCIDENT: {"label": "wrong hours"},
        K.PREFERENCE: {"text": "At nine.", "rejected": "At ten."},
    }  # fmt: skip
    said = [
        Feedback.model_validate(
            {
                "id": f"f{n}-{kind}", "interaction_id": f"i{n}", "kind": kind, "created_at": at, "principal": "bob",
                **needs.get(kind, {"text": "We open at nine."}),
            }
        )
        for kind in kinds
    ]  # fmt: skip
    return interaction, said


@pytest.fixture
def full(sqlite_store: Store) -> Store:
    """One interaction with all kinds of feedback, two with a correction, one with nothing."""
    pairs = [a_pair(0, *K), a_pair(1, K.CORRECTION), a_pair(2, K.CORRECTION), a_pair(3)]
    ingest(sqlite_store, MODEL, KEY, MemorySource([as_line(interaction, said) for interaction, said in pairs]))
    return sqlite_store


LEFT: dict[str, tuple[int, int]] = {
    # rows, left out
    "jsonl": (4, 0), "parquet": (9, 0), "csv": (9, 0), "openai-chat": (3, 6), "openai-dpo": (1, 8),
    "sharegpt": (3, 6), "alpaca": (3, 6), "trl": (3, 6), "label-studio": (5, 1), "argilla": (5, 1),
}  # fmt: skip


@pytest.mark.parametrize("format", EXPORTS)
def test_what_a_format_cannot_hold_is_counted_with_its_reason(full: Store, tmp_path: Path, format: str) -> None:
    out = tmp_path / "new" / f"out.{format}"
    report = export(full, MODEL, str(out), format=format)
    assert (report.rows, sum(report.left_out.values())) == LEFT[format]
    assert all(reason.startswith(format.split("-")[0]) for reason in report.left_out)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    url = f"memory://{tmp_path.name}/out.{format}"
    assert export(full, MODEL, url, format=format) == report
    with fsspec.open(url, "rb") as handle:
        assert handle.read() == out.read_bytes()
    fs = fsspec.filesystem("memory")
    assert [path.rsplit("/", 1)[1] for path in fs.find(f"/{tmp_path.name}")] == [f"out.{format}"]


@pytest.mark.parametrize("format", EXPORTS)
def test_importing_an_export_changes_nothing_where_the_format_holds_it(
    full: Store, tmp_path: Path, format: str
) -> None:
    suffix = {"jsonl": "jsonl", "parquet": "parquet", "csv": "csv"}.get(format, "json")
    out = str(tmp_path / f"out.{suffix}")
    export(full, MODEL, out, format=format)
    source = FileSource(out, container=suffix if suffix != "json" else "auto")  # type: ignore[arg-type]
    report = ingest(full, MODEL, KEY, source, dry_run=True)
    assert report.rejected == 0
    if format in ("jsonl", "parquet", "csv"):
        assert (report.interactions, report.feedback) == (0, 0)
    if format in ("label-studio", "argilla"):
        assert report.interactions == 0  # they join by the request's id


def test_only_a_kind_and_only_since(full: Store, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert export(full, MODEL, out, kind=K.THUMB) == ExportReport(1, {})
    assert export(full, MODEL, out, since=START + timedelta(days=2)).rows == 2
    assert export(full, MODEL, out, kind=K.CORRECTION, since=START + timedelta(days=1)).rows == 2
    assert export(full, MODEL, out, format="trl", kind=K.THUMB) == ExportReport(1, {})
    rows, _, _ = read_all(FileSource(out))
    assert [row["feedback_kind"] for row in rows] == ["thumb"]
    with pytest.raises(InputError, match="holds no rating") as caught:
        export(full, MODEL, out, format="alpaca", kind=K.RATING)
    assert caught.value.expected == "correction, preference, thumb"
    with pytest.raises(InputError, match="no such format"):
        export(full, MODEL, out, format="mlflow")


def test_a_file_appears_whole_or_not_at_all(full: Store, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    with full.write() as conn:
        # A row nobody can read any more: the export fails in the middle.
        conn.exec_driver_sql('UPDATE interactions SET messages = \'[{"role": "robot"}]\' WHERE seq > 1')
    with pytest.raises(ValueError, match="role"):
        export(full, MODEL, str(out))
    assert out.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".jsonl", ".tmp")] == ["out.jsonl"]


def test_an_alpaca_conversation_that_does_not_fit_is_left_out(sqlite_store: Store, tmp_path: Path) -> None:
    interaction, said = a_pair(0, K.CORRECTION)
    odd = interaction.model_copy(update={"messages": (*interaction.messages, *interaction.messages)})
    ingest(sqlite_store, MODEL, KEY, MemorySource([as_line(odd, said)]))
    report = export(sqlite_store, MODEL, str(tmp_path / "out"), format="alpaca")
    assert report == ExportReport(0, {"alpaca: the conversation is not question, answer, ..., question": 1})
    assert json.loads((tmp_path / "out").read_text()) == []


def test_more_than_a_page_is_read_in_order(sqlite_store: Store) -> None:
    pairs = [a_pair(n, K.THUMB) for n in range(1203)]
    ingest(sqlite_store, MODEL, KEY, MemorySource([as_line(i, said) for i, said in pairs]))
    found = [(i.conversation, len(said)) for i, said in stored(sqlite_store, MODEL)]
    assert found == [(f"c{n}", 1) for n in range(1203)]
