"""Snapshots: one digest for the same rows, nothing half-written visible, tampering found."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from snapshot_samples import NOW, ROWS_IN, put, row

from configs.errors import SnapshotError
from data_contracts.records import Message
from data_contracts.snapshots import MANIFEST, ROWS, read_manifest, read_rows, verify


def test_round_trip(tmp_path: Path) -> None:
    record = put(tmp_path)
    assert record == read_manifest(record.path) == verify(record.path)
    assert record.counts == {"target.correction": 5, "train.correction": 20, "train.replay": 1}
    assert len(record.row_ids) == 25
    assert {r.digest: r for r in read_rows(record.path)} == {r.digest: r for r in ROWS_IN}
    assert len(read_rows(record.path, split="train")) == 21
    assert len(read_rows(record.path, split="target")) == 5
    assert read_rows(record.path, split="incident") == []


def test_digest_unchanged_by_order_repeats_zone_and_time(tmp_path: Path) -> None:
    first = put(tmp_path / "a")
    shuffled = [*ROWS_IN, ROWS_IN[3]]
    random.Random(3).shuffle(shuffled)
    zone = timezone(timedelta(hours=9))
    second = put(tmp_path / "b", shuffled, created_at=NOW.astimezone(zone) + timedelta(days=1))
    assert first.digest == second.digest
    assert read_rows(first.path) == read_rows(second.path)


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"contract_digest": "d" * 64}, {"base_digest": "e" * 64}, {"replay": {}}]
)
def test_digest_changes_with_what_the_rows_mean(tmp_path: Path, change: dict[str, Any]) -> None:
    assert put(tmp_path).digest != put(tmp_path, **change).digest


def test_digest_changes_with_any_field_of_a_row(tmp_path: Path) -> None:
    seen = {put(tmp_path).digest}
    for change in (
        {"completion": "x"},
        {"split": "target"},
        {"slice": "t"},
        {"row_id": "other"},
        {"messages": (Message(role="user", content="x"),)},
    ):
        seen.add(put(tmp_path, [ROWS_IN[0].model_copy(update=change), *ROWS_IN[1:]]).digest)
    assert len(seen) == 6


def test_published_twice_is_one(tmp_path: Path) -> None:
    first = put(tmp_path)
    again = put(tmp_path, list(reversed(ROWS_IN)), watermark=99)
    assert again == first
    assert [p.name for p in tmp_path.iterdir()] == [first.digest]


def test_the_digest_is_the_same_in_another_process_with_another_hash_seed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]);"
        "from snapshot_samples import put; print(put(Path(sys.argv[1])).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / seed), str(Path(__file__).parent)],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {put(tmp_path / "here").digest}


def test_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="without rows"):
        put(tmp_path, [])


def test_two_different_rows_with_one_digest_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="same digest"):
        put(tmp_path, [row(1), row(1, "target")])


def test_an_unfinished_folder_is_not_a_snapshot(tmp_path: Path) -> None:
    record = put(tmp_path)
    (Path(record.path) / MANIFEST).unlink()
    with pytest.raises(SnapshotError, match="did not finish"):
        read_rows(record.path)
    with pytest.raises(SnapshotError, match="no snapshot here"):
        read_manifest(tmp_path / "none")


def test_a_changed_row_is_found(tmp_path: Path) -> None:
    record = put(tmp_path)
    other = put(tmp_path, [row(n, completion="poison") for n in range(20)])
    (Path(record.path) / ROWS).write_bytes((Path(other.path) / ROWS).read_bytes())
    with pytest.raises(SnapshotError, match="does not match its digest"):
        read_rows(record.path)
    assert len(read_rows(record.path, check=False)) == 20


def test_a_changed_manifest_is_found(tmp_path: Path) -> None:
    record = put(tmp_path)
    path = Path(record.path) / MANIFEST
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "base_digest": "f" * 64}))
    with pytest.raises(SnapshotError, match="does not match"):
        verify(record.path)
    path.write_text("{not json")
    with pytest.raises(SnapshotError, match="manifest cannot be read"):
        verify(record.path)


def test_unreadable_rows_are_one_clear_error(tmp_path: Path) -> None:
    record = put(tmp_path)
    (Path(record.path) / ROWS).write_bytes(b"PAR1 nonsense")
    with pytest.raises(SnapshotError, match="rows cannot be read"):
        read_rows(record.path)


def _publish_in_process(root: str) -> str:
    return put(Path(root)).digest


def test_processes_racing_leave_one_whole_snapshot(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        digests = pool.map(_publish_in_process, [str(tmp_path)] * 6)
    assert len(set(digests)) == 1
    assert [p.name for p in tmp_path.iterdir()] == digests[:1]
    verify(tmp_path / digests[0])
