"""What changed between two snapshots, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshot_samples import ROWS_IN, put, row

from configs.errors import SnapshotError
from data_contracts.snapshot_diff import diff_snapshots
from data_contracts.snapshots import MANIFEST, erase_rows


def test_a_snapshot_does_not_differ_from_itself(tmp_path: Path) -> None:
    record = put(tmp_path)
    found = diff_snapshots(record.path, record.path)
    assert (found.rows, found.changes, found.facts, found.slices) == ({}, (), {}, {})
    assert found.unchanged == len(ROWS_IN)
    assert found.counts["train.correction"] == (20, 20)


def test_every_kind_of_change_has_its_reason(tmp_path: Path) -> None:
    one = put(tmp_path, sources={"store": "7"}, config_digest="e" * 64)
    rows = [
        *ROWS_IN[3:10],  # f0, f1, f2 are gone
        ROWS_IN[10].model_copy(update={"split": "target"}),
        ROWS_IN[11].model_copy(update={"completion": "better"}),
        *ROWS_IN[12:25],
        row(50, slice="fresh"),
        row(51, source="replay"),
    ]
    two = put(
        tmp_path, rows, contract_digest="d" * 64, watermark=9, reasons={"cap": 3, "conflict": 1}, sources={"store": "9"}
    )
    why = {"f0": "quarantine: conflict", "f1": "erased"}
    found = diff_snapshots(one.path, two.path, why_gone=lambda name: why.get(name, ""))
    assert found.rows == {
        "added: new": 2,
        "changed: other text, label, slice or digest": 1,
        "moved: train -> target": 1,
        "removed: erased": 1,
        "removed: no longer chosen": 2,
        "removed: quarantine: conflict": 1,
    }
    by_row = {change.row: change for change in found.changes}
    assert (by_row["f0"].change, by_row["f0"].reason) == ("removed", "quarantine: conflict")
    assert (by_row["f10"].change, by_row["f10"].split) == ("moved", "target")
    assert by_row["f11"].change == "changed"
    # A replay row has no feedback id; it goes by its digest.
    assert by_row[ROWS_IN[25].digest].source == "replay"
    assert found.unchanged == 20
    assert found.counts == {"target.correction": (5, 6), "train.correction": (20, 17), "train.replay": (1, 1)}
    assert found.slices["fresh"] == (0, 1)
    assert found.left_out == {"cap": (2, 3), "conflict": (0, 1)}
    assert found.facts == {
        "config": ("e" * 64, ""),
        "contract": ("c" * 64, "d" * 64),
        "source.store": ("7", "9"),
        "watermark": ("7", "9"),
    }


def test_erased_rows_are_told_from_rows_that_were_not_chosen(tmp_path: Path) -> None:
    one = put(tmp_path / "a")
    two = put(tmp_path / "b", [*ROWS_IN, row(60)])
    erase_rows(two.path, {"f1", "f2"})
    found = diff_snapshots(one.path, two.path)
    assert found.rows == {"added: new": 1, "removed: erased": 2}
    assert found.erased == (0, 2)
    assert found.counts["train.correction"] == (20, 19)
    back = diff_snapshots(two.path, one.path)
    assert back.rows == {"added: erased in the first since": 2, "removed: no longer chosen": 1}


def test_more_changes_than_asked_for_are_counted_all_the_same(tmp_path: Path) -> None:
    one, two = put(tmp_path), put(tmp_path, [row(n) for n in range(100, 140)])
    found = diff_snapshots(one.path, two.path, limit=5)
    assert len(found.changes) == 5
    assert sum(found.rows.values()) == len(ROWS_IN) + 40


def test_a_snapshot_that_was_changed_is_not_compared(tmp_path: Path) -> None:
    one, two = put(tmp_path), put(tmp_path, ROWS_IN[:20])
    manifest = Path(two.path) / MANIFEST
    manifest.write_text(manifest.read_text().replace("c" * 64, "d" * 64))
    with pytest.raises(SnapshotError, match="does not match its digest"):
        diff_snapshots(one.path, two.path)
