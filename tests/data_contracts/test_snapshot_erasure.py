"""Erased rows: gone from the folder byte for byte, the digest still verifies, nothing trains on what is left."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from snapshot_samples import ROWS_IN, put, salt

from configs.errors import SnapshotError
from data_contracts.digests import digest, salted_digest
from data_contracts.snapshot_files import write_manifest
from data_contracts.snapshots import (
    MANIFEST,
    ROWS,
    erase_rows,
    read_manifest,
    read_rows,
    remaining_rows,
    verify,
)


def everything(folder: Path) -> str:
    """All that can be read out of the files of a folder: their bytes, and what Parquet keeps compressed."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found.append(path.read_bytes().decode("utf-8", "replace"))
        if path.suffix == ".parquet":
            found.append(json.dumps(pq.read_table(path).to_pylist()))
            found.append(str(pq.ParquetFile(path).metadata.to_dict()))
    return "\n".join(found)


def test_an_erased_row_leaves_nothing_but_its_leaf(tmp_path: Path) -> None:
    record = put(tmp_path)
    assert "secret question 3 " in everything(Path(record.path))
    assert erase_rows(record.path, {"f3", "f22", "not-there"}) == 2
    left = everything(Path(record.path))
    for n in (3, 22):
        gone = ROWS_IN[n]
        for trace in (f"question {n} ", f"answer {n}", f'"f{n}"', gone.digest):
            assert trace not in left
        assert digest(gone) in left
    assert "secret question 4 " in left
    assert sorted(p.name for p in Path(record.path).iterdir()) == sorted(
        [MANIFEST, read_manifest(record.path).rows_file]
    )


def test_a_snapshot_with_tombstones_verifies_and_cannot_train(tmp_path: Path) -> None:
    record = put(tmp_path)
    erase_rows(record.path, {"f3", "f22"})
    after = verify(record.path)
    assert (after.digest, after.counts, after.erased) == (record.digest, record.counts, 2)
    assert set(record.row_ids) - set(after.row_ids) == {"f3", "f22"}
    assert after.feedback_rows == 23
    assert {r.digest for r in remaining_rows(record.path)} == {r.digest for r in ROWS_IN} - {
        ROWS_IN[3].digest,
        ROWS_IN[22].digest,
    }
    for split in (None, "train", "target"):
        with pytest.raises(SnapshotError, match="erased") as error:
            read_rows(record.path, split=split)
        assert "2 erased rows" in str(error.value)


def test_erasing_again_counts_only_what_is_new(tmp_path: Path) -> None:
    record = put(tmp_path)
    assert erase_rows(record.path, {"f1"}) == 1
    assert erase_rows(record.path, {"f1"}) == 0
    assert erase_rows(record.path, {"f1", "f2"}) == 1
    assert verify(record.path).erased == 2
    assert erase_rows(record.path, {f"f{n}" for n in range(25)}) == 23
    assert verify(record.path).row_ids == ()


def test_every_row_can_go(tmp_path: Path) -> None:
    record = put(tmp_path)
    assert erase_rows(record.path, frozenset(), digests={r.digest for r in ROWS_IN}) == len(ROWS_IN)
    assert remaining_rows(record.path) == []
    assert "secret" not in everything(Path(record.path))
    assert verify(record.path).digest == record.digest


def test_a_row_without_a_feedback_id_goes_by_its_digest(tmp_path: Path) -> None:
    record = put(tmp_path)
    assert erase_rows(record.path, frozenset(), digests={ROWS_IN[25].digest}) == 1
    assert verify(record.path).row_ids == record.row_ids


def test_the_same_rows_published_again_do_not_bring_an_erased_row_back(tmp_path: Path) -> None:
    record = put(tmp_path)
    erase_rows(record.path, {"f3"})
    again = put(tmp_path)
    assert (again.digest, again.erased) == (record.digest, 1)
    assert "secret question 3 " not in everything(tmp_path)


def test_a_leaf_does_not_tell_whether_a_guess_is_right(tmp_path: Path) -> None:
    """Whoever knows all but the salt: every field of the row and how leaves are made."""
    record = put(tmp_path)
    erase_rows(record.path, {"f3"})
    kept = pq.read_table(Path(record.path) / read_manifest(record.path).rows_file).to_pylist()
    leaf = next(line["leaf"] for line in kept if line["digest"] is None)
    right = ROWS_IN[3]
    guesses = [right.model_copy(update={"digest": made}) for made in (
        "", digest(["row", 3]), salted_digest(b"", ["row", 3]), salted_digest(b"f3", ["row", 3]), right.row_id,
    )]  # fmt: skip
    assert leaf not in {digest(guess) for guess in guesses}
    # Only the salted digest opens it, and that is gone with the salt and the row.
    assert leaf == digest(right.model_copy(update={"digest": salted_digest(salt(3), ["row", 3])}))
    assert all(value is None for name, value in next(x for x in kept if x["leaf"] == leaf).items() if name != "leaf")


def test_a_tombstone_put_in_the_place_of_another_row_is_found(tmp_path: Path) -> None:
    record = put(tmp_path)
    erase_rows(record.path, {"f3"})
    file = Path(record.path) / read_manifest(record.path).rows_file
    table = pq.read_table(file)
    lines = [
        line if line["row_id"] != "f4" else {**dict.fromkeys(line), "leaf": "0" * 64} for line in table.to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(lines, schema=table.schema), file)
    with pytest.raises(SnapshotError, match="does not match its digest"):
        verify(record.path)


def test_a_manifest_that_hides_the_erasure_is_found(tmp_path: Path) -> None:
    record = put(tmp_path)
    erase_rows(record.path, {"f3"})
    write_manifest(Path(record.path), read_manifest(record.path).model_copy(update={"erased": 0}))
    with pytest.raises(SnapshotError, match="does not match"):
        verify(record.path)


def test_a_manifest_may_not_name_a_file_elsewhere(tmp_path: Path) -> None:
    record = put(tmp_path)
    data = json.loads((Path(record.path) / MANIFEST).read_text())
    (Path(record.path) / MANIFEST).write_text(json.dumps({**data, "rows_file": "../../rows.parquet"}))
    with pytest.raises(SnapshotError, match="manifest cannot be read"):
        read_manifest(record.path)


def test_a_snapshot_from_before_leaves_were_kept_reads_and_erases(tmp_path: Path) -> None:
    record = put(tmp_path)
    folder = Path(record.path)
    pq.write_table(pq.read_table(folder / ROWS).drop_columns(["leaf"]), folder / ROWS)
    data = json.loads((folder / MANIFEST).read_text())
    new = ("sources", "config_digest", "rows_file", "erased", "row_ids_count", "row_ids_digest")
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in data.items() if k not in new}))
    assert verify(folder).feedback_rows == 25
    assert len(read_rows(folder)) == len(ROWS_IN)
    assert erase_rows(folder, {"f3"}) == 1
    assert verify(folder).erased == 1


def test_what_is_not_a_snapshot_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no snapshot here"):
        erase_rows(tmp_path / "none", {"f1"})
    record = put(tmp_path)
    (Path(record.path) / ROWS).unlink()
    with pytest.raises(SnapshotError, match="rows cannot be read"):
        erase_rows(record.path, {"f1"})


def test_readers_meanwhile_see_old_or_new(tmp_path: Path) -> None:
    record = put(tmp_path)
    stop = threading.Event()
    seen: list[int] = []
    errors: list[Exception] = []

    def read() -> None:
        while not stop.is_set():
            try:
                seen.append(verify(record.path).erased)
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(20):
        erase_rows(record.path, {f"f{n}"})
    stop.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert set(seen) <= set(range(21))
    assert len(seen) > 3


def _erase_in_process(path: str, n: int) -> int:
    return erase_rows(path, {f"f{n}"})


def test_processes_that_erase_at_once_erase_all(tmp_path: Path) -> None:
    record = put(tmp_path)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(_erase_in_process, [(record.path, n) for n in range(9)]) == [1] * 9
    assert verify(record.path).erased == 9
    assert len(list(Path(record.path).iterdir())) == 2


_ERASE = """
import os, signal, sys
from data_contracts.snapshots import erase_rows
import numpy, pyarrow.parquet, pyarrow.compute
STEPS = {"open", "os.rename", "os.remove", "shutil.rmtree"}
def run(folder, left):
    def watch(event, arguments):
        # A step is whatever touches the snapshot's folder; the process dies just before step `left`.
        nonlocal left
        if event in STEPS and any(folder in str(argument) for argument in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    erase_rows(folder, {f"f{n}" for n in range(5)})
for step, folder in enumerate(sys.argv[1:], 1):
    # One process each, without importing everything again; nothing of Arrow has run before.
    child = os.fork()
    if child == 0:
        run(folder, step)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
    if status == 0:
        break
"""


def test_killed_at_any_step_of_erasing_it_is_the_old_or_the_new_and_the_next_call_cleans_up(tmp_path: Path) -> None:
    record = put(tmp_path / "whole")
    folders = [tmp_path / f"{step:02d}" / record.digest for step in range(60)]
    for folder in folders:
        shutil.copytree(record.path, folder)
    done = subprocess.run(
        [sys.executable, "-c", _ERASE, *map(str, folders)], capture_output=True, text=True, check=True, timeout=120
    )
    codes = list(map(int, done.stdout.split()))
    assert codes[:-1] == [-signal.SIGKILL] * (len(codes) - 1)
    assert codes[-1] == 0
    outcomes = []
    for folder in folders[: len(codes)]:
        outcomes.append(verify(folder).erased)
        assert erase_rows(folder, {f"f{n}" for n in range(5)}) == 5 - outcomes[-1]
        assert sorted(p.name for p in folder.iterdir()) == sorted([MANIFEST, verify(folder).rows_file])
        left = everything(folder)
        assert not any(text in left for text in ("secret answer 0", "secret answer 3", "secret answer 4"))
    # Many steps: first those that change nothing, then those that only tidy up.
    assert len(outcomes) > 10
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 5}
