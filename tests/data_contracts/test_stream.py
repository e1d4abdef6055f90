"""A stream decides as the list does, whatever the rows, and says of every row why."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from labelled_rows import START, labelled

from configs.curation import CurationSection
from configs.errors import InputError
from configs.loader import resource_path
from data_contracts.contract import load_contract
from data_contracts.curation import curate
from data_contracts.expectations import validate
from data_contracts.records import FeedbackKind, LabelledRow
from data_contracts.redaction import RedactionPolicy, Redactor
from data_contracts.snapshots import read_rows
from data_contracts.stream import StreamReport, labelled_schema, stream_snapshot
from data_contracts.stream_batches import UNREADABLE, redact_batch

CONTRACT = resource_path("contracts/feedback_correction.yaml")
NOW = START + timedelta(days=90)
POLICY = CurationSection(holdout_share=0.3)
EVAL = ("How long may I keep item number 7 before I return it?",)
REDACTOR = Redactor(policy=RedactionPolicy({"IP": "drop_row"}))


def plain(row: LabelledRow) -> dict[str, Any]:
    """A row as a line of the stream."""
    return row.model_dump() | {"kind": row.kind.value, "messages": [m.model_dump() for m in row.messages]}


def ordinary(count: int) -> list[LabelledRow]:
    """Rows of which some agree, some differ, some break the contract and some hold personal data."""
    answers = ("You can return goods within 45 days.", "Goods may come back for a week, not longer.")
    odd = {
        3: {"completion": "   "},
        5: {"completion": "Press <|im_end|> to go on."},
        11: {"prompt": "What does [INST] mean on item 11?"},
        13: {"completion": "Write to ann@example.com about it."},
        17: {"prompt": "I came from 10.1.2.3, where is item 17?"},
        19: {"completion": "I do not know."},
        22: {"answer": "I came from 10.1.2.3 and do not know."},
        26: {"answer": "Write to ann@example.com about it."},
    }
    return [
        labelled(
            n,
            **{
                "prompt": f"How do I return thing {n % 60} of the spring collection, and when?",
                "completion": answers[n % 7 == 0],
                "principal": f"user-{n % 90}",
                "asked_by": f"user-{n % 90}",
                "scope": "review" if n % 2 else "user",
                **({"kind": FeedbackKind.PREFERENCE, "answer": f" Goods of lot {n} stay. "} if n % 4 == 2 else {}),
                **odd.get(n % 40, {}),
            },
        )
        for n in range(count)
    ]


def hostile() -> list[dict[str, Any]]:
    """Rows no record could hold."""
    fields = ("id", "digest", "created_at", "asked_by", "principal", "scope", "completion", "messages")
    changes: list[dict[str, Any]] = [{name: None} for name in fields]
    changes += [
        {"messages": said}
        for said in (
            [None],
            [{"role": "user", "content": None}],
            [{"role": None, "content": "Where?"}],
            [{"role": "tool", "content": "Where?"}],
            [{"role": "user", "content": "Where?"}, None],
        )
    ]
    return [plain(labelled(9000 + n)) | change for n, change in enumerate(changes)]


def batches(rows: list[dict[str, Any]], size: int = 37) -> list[pa.RecordBatch]:
    parts = [rows[at : at + size] for at in range(0, len(rows), size)]
    return [pa.RecordBatch.from_pylist(part, schema=labelled_schema()) for part in parts]


def stream(folder: Path, given: list[pa.RecordBatch], **known: Any) -> StreamReport:
    return stream_snapshot(
        given, folder / "work", folder / "snapshots", contract=load_contract(CONTRACT), policy=POLICY,
        redactor=REDACTOR, eval_prompts=EVAL, model="m", base_digest="b" * 64, watermark=1, created_at=NOW, **known,
    )  # fmt: skip


def told(report: StreamReport) -> list[tuple[str | None, str]]:
    """(id, reason) of every row left out."""
    assert report.left_out is not None
    lines = pa.ipc.open_file(str(report.left_out)).read_all().to_pylist()
    assert dict(Counter(line["reason"] for line in lines)) == report.reasons
    return [(line["id"], line["reason"]) for line in lines]


def split_ids(report: StreamReport) -> dict[str, set[str]]:
    assert report.snapshot is not None
    rows = read_rows(Path(report.snapshot.path))
    return {split: {row.row_id for row in rows if row.split == split} for split in ("train", "target")}


def test_the_stream_decides_as_the_list_does_and_says_why(tmp_path: Path) -> None:
    good, bad = ordinary(320), hostile()
    mixed = [plain(row) for row in good]
    for n, row in enumerate(bad):
        mixed.insert(n * 20, row)
    released, dropped, suspects = {"f3", "f5", "f17", "f51"}, {"f1", "f2"}, {"f8", "f9", "f51"}
    known = {"dropped": dropped, "suspects": suspects}
    report = stream(tmp_path, batches(mixed), released=released, **known)

    clean = [LabelledRow.model_validate(line) for part in batches([plain(row) for row in good])
             for line in redact_batch(part, REDACTOR).to_pylist()]  # fmt: skip
    verdict = validate(clean, CONTRACT, released=released)
    accepted = set(verdict.accepted)
    listed = curate([r for r in clean if r.id in accepted], released, POLICY, EVAL, now=NOW, redactor=REDACTOR, **known)
    wanted = [(row.row_id, row.reason) for row in (*verdict.quarantined, *listed.left_out)]
    wanted += [(row["id"], UNREADABLE) for row in bad]

    assert sorted(told(report), key=str) == sorted(wanted, key=str)
    found = split_ids(report)
    assert found == {"train": {r.row_id for r in listed.train}, "target": {r.row_id for r in listed.target}}
    assert found["train"]
    assert found["target"]
    assert report.rows == len(mixed) == len(wanted) + sum(map(len, found.values()))
    assert {"dropped", "suspect", "redaction.ip", "personal_data", UNREADABLE} <= set(report.reasons)
    assert report.snapshot is not None
    published = {row.row_id: row for row in read_rows(report.snapshot.path)}
    assert published == {row.row_id: row for row in (*listed.train, *listed.target)}
    pairs = [row for row in published.values() if row.source == "preference"]
    assert pairs
    assert all((row.rejected or "").startswith("Goods of lot") for row in pairs)
    assert all(row.rejected is None for row in published.values() if row.source == "correction")


def test_a_person_lets_a_row_through_past_the_contract(tmp_path: Path) -> None:
    rows = [plain(labelled(n, scope="review")) for n in range(20, 40)]
    rows[4]["completion"] = "Press <|im_end|> to go on."
    held = stream(tmp_path / "held", batches(rows))
    assert ("f24", "contract.completion_without_template_tokens") in told(held)
    report = stream(tmp_path / "released", batches(rows), released={"f24"})
    assert "f24" not in {name for name, _ in told(report)}
    assert "f24" in set().union(*split_ids(report).values())


def test_text_that_is_not_utf8_is_refused_and_not_the_stream(tmp_path: Path) -> None:
    (batch,) = batches([plain(labelled(n, scope="review")) for n in (20, 21, 22)])
    broken = pa.array([b"You may.", b"\xff\xfe", b"You may."]).cast(pa.binary()).view(pa.string())
    place = batch.schema.names.index("completion")
    ids = pa.array([b"f20", b"f21", b"\xff"]).view(pa.string())
    batch = batch.set_column(place, "completion", broken).set_column(0, "id", ids)
    assert sorted(told(stream(tmp_path, [batch])), key=str)[-2:] == [("f21", UNREADABLE), (None, UNREADABLE)]


def test_nothing_readable_is_no_snapshot_and_a_lacking_column_an_error(tmp_path: Path) -> None:
    report = stream(tmp_path / "a", batches(hostile()))
    assert report.snapshot is None
    assert report.reasons == {UNREADABLE: len(hostile())}
    (batch,) = batches([plain(labelled(1))])
    with pytest.raises(InputError, match="lacks columns"):
        stream(tmp_path / "b", [batch.drop_columns(["asked_by"])])
