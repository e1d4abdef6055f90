"""Preferences and thumbs in a snapshot: new columns, old digests, old files, nothing left after an erasure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from snapshot_samples import FACTS, ROWS_IN, put, row

from configs.errors import SnapshotError
from data_contracts.digests import digest
from data_contracts.records import SnapshotRow
from data_contracts.snapshot_diff import diff_snapshots
from data_contracts.snapshot_files import columns_of, leaf_of
from data_contracts.snapshots import (
    erase_rows,
    load_dataset_split,
    publish_stream,
    read_manifest,
    read_rows,
    remaining_rows,
    verify,
)

PAIR = row(30, source="preference", row_id="f30", rejected="secret rejected 30")
UP = row(31, source="thumb", row_id="f31", label=1)
DOWN = row(32, source="thumb", row_id="f32", label=-1)
SIGNALS = [*ROWS_IN, PAIR, UP, DOWN]


def texts(folder: Path) -> str:
    found = [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]
    found += [json.dumps(pq.read_table(path).to_pylist()) for path in folder.rglob("*.parquet")]
    return "\n".join(found)


def without_new_columns(record: Any) -> None:
    """The file of rows as it was before `rejected` and `label`."""
    file = Path(record.path) / record.rows_file
    pq.write_table(pq.read_table(file).drop_columns(["rejected", "label"]), file)


def test_rejected_answers_and_labels_come_back(tmp_path: Path) -> None:
    record = put(tmp_path, SIGNALS)
    assert record.counts["train.preference"] == 1
    assert record.counts["train.thumb"] == 2
    found = {r.row_id: r for r in read_rows(record.path)}
    assert [found[f"f{n}"] for n in (30, 31, 32)] == [PAIR, UP, DOWN]
    assert found["f3"] == ROWS_IN[3]
    data = {line["row_id"]: line for line in load_dataset_split(record.path, "train")}
    assert (data["f30"]["rejected"], data["f31"]["label"], data["f3"]["label"]) == ("secret rejected 30", 1, None)


def test_both_fields_are_in_the_digest_and_their_absence_is_not(tmp_path: Path) -> None:
    plain = {name: value for name, value in ROWS_IN[0] if name not in ("rejected", "label")}
    assert digest(ROWS_IN[0]) == digest(plain) == leaf_of(columns_of(ROWS_IN[0]))
    for one in (PAIR, UP, DOWN):
        assert digest(one) == leaf_of(columns_of(one))
    leaves = {
        digest(r) for r in (PAIR, PAIR.model_copy(update={"rejected": "x"}), UP, UP.model_copy(update={"label": -1}))
    }
    assert len(leaves) == 4
    assert SnapshotRow.model_validate_json(PAIR.model_dump_json()) == PAIR
    with pytest.raises(ValidationError, match="label"):
        row(1, label=0)


def test_arrow_batches_may_hold_the_columns_or_not(tmp_path: Path) -> None:
    old = pa.Table.from_pylist([columns_of(r) for r in ROWS_IN[:20]]).drop_columns(["rejected", "label"])
    new = pa.Table.from_pylist([columns_of(r) for r in (PAIR, UP, DOWN)])
    streamed = publish_stream(tmp_path / "a", [new, old, ROWS_IN[20:]], **FACTS)
    assert streamed.digest == put(tmp_path / "b", SIGNALS).digest
    assert read_rows(streamed.path) == read_rows(tmp_path / "b" / streamed.digest)


def test_a_file_from_before_the_columns_is_read_verified_and_erased(tmp_path: Path) -> None:
    record = put(tmp_path)
    without_new_columns(record)
    assert verify(record.path) == record
    assert {r.digest: r for r in read_rows(record.path)} == {r.digest: r for r in ROWS_IN}
    assert load_dataset_split(record.path, "target")[0]["rejected"] is None
    assert erase_rows(record.path, {"f3"}) == 1
    assert verify(record.path).erased == 1
    assert len(remaining_rows(record.path)) == len(ROWS_IN) - 1


def test_a_label_taken_out_of_the_file_is_found(tmp_path: Path) -> None:
    record = put(tmp_path, SIGNALS)
    without_new_columns(record)
    with pytest.raises(SnapshotError, match="does not match its digest"):
        read_rows(record.path)


def test_an_erased_preference_or_thumb_leaves_nothing_but_its_leaf(tmp_path: Path) -> None:
    record = put(tmp_path, SIGNALS)
    load_dataset_split(record.path, "train")
    assert "secret rejected 30" in texts(Path(record.path))
    assert erase_rows(record.path, {"f30", "f32"}) == 2
    left = texts(Path(record.path))
    for trace in ("secret rejected 30", "question 30 ", "answer 32", PAIR.digest, DOWN.digest):
        assert trace not in left
    assert digest(PAIR) in left
    assert verify(record.path).erased == 2
    assert {r.row_id: r for r in remaining_rows(record.path)}["f31"] == UP
    (file,) = Path(record.path).glob("rows*.parquet")
    assert file.name == read_manifest(record.path).rows_file
    assert erase_rows(record.path, {"f31"}) == 1
    assert verify(record.path).digest == record.digest


def test_a_diff_tells_what_a_row_became(tmp_path: Path) -> None:
    before = row(30, row_id="f30")
    one = put(tmp_path, [*ROWS_IN, before, UP])
    two = put(
        tmp_path,
        [*ROWS_IN, PAIR.model_copy(update={"completion": before.completion}), UP.model_copy(update={"label": -1})],
    )
    found = diff_snapshots(one.path, two.path)
    assert found.rows == {"changed: correction -> preference": 1, "changed: other text, label, slice or digest": 1}
    assert found.counts["train.preference"] == (0, 1)
