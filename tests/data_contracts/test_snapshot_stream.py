"""Snapshots from streams: one digest whatever the batches, bounded memory, killed at any moment, memory-mapped."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshot_samples import FACTS, ROWS_IN, put, row

from configs.errors import SnapshotError
from data_contracts import snapshot_publish
from data_contracts.digests import digest, set_digest
from data_contracts.records import Message, SnapshotRow
from data_contracts.snapshot_files import ROW_IDS_INLINE, columns_of, leaf_of, schema
from data_contracts.snapshot_sets import IdSet, LeafSet
from data_contracts.snapshots import (
    erase_rows,
    iter_rows,
    load_dataset_split,
    publish_stream,
    read_manifest,
    read_rows,
    row_ids_of,
    snapshot_digest,
    sweep_unfinished,
    verify,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
MESSAGES = st.lists(st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=TEXT), max_size=3)


@st.composite
def snapshots_of_rows(draw: st.DrawFn) -> list[SnapshotRow]:
    """Rows with any texts; digests are their own, ids sometimes empty or shared."""
    count = draw(st.integers(1, 30))
    return [
        SnapshotRow(
            digest=f"d{n}",
            split=draw(st.sampled_from(["train", "target", "incident"])),
            source=draw(st.sampled_from(["correction", "incident", "replay"])),
            messages=tuple(draw(MESSAGES)),
            completion=draw(TEXT),
            row_id=draw(st.sampled_from(["", f"f{n}", "é", "z", "🙂"])),
            slice=draw(TEXT),
        )
        for n in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(snapshots_of_rows(), st.randoms(use_true_random=False))
def test_the_digest_is_the_same_whatever_the_order_and_the_batches(
    tmp_path_factory: pytest.TempPathFactory, rows: list[SnapshotRow], shuffle: random.Random
) -> None:
    root = tmp_path_factory.mktemp("snapshots")
    whole = put(root / "a", rows)
    mixed = [*rows, shuffle.choice(rows)]
    shuffle.shuffle(mixed)
    batches: list[object] = []
    while mixed:
        take = shuffle.randint(1, 7)
        part, mixed = mixed[:take], mixed[take:]
        as_arrow = shuffle.random() < 0.5
        batches.append(
            pa.Table.from_pylist([columns_of(r) for r in part]) if as_arrow and all(p.messages for p in part) else part
        )
    streamed = publish_stream(root / "b", batches, **FACTS)
    assert streamed.model_copy(update={"path": ""}) == whole.model_copy(update={"path": ""})
    assert read_rows(whole.path) == read_rows(streamed.path)
    # The definition, written out.
    facts = {"model": "support-bot", "contract": "c" * 64, "base": "b" * 64, "replay": {"base": "b" * 64}}
    assert whole.digest == digest({"format": 1, **facts, "rows": sorted(digest(r) for r in rows)})
    names = {"model": "support-bot", "contract_digest": "c" * 64, "base_digest": "b" * 64, "replay": {"base": "b" * 64}}
    assert whole.digest == snapshot_digest(rows, **names)
    assert whole.row_ids == tuple(sorted({r.row_id for r in rows if r.row_id}))
    assert all(leaf_of(columns_of(r)) == digest(r) for r in rows)


def test_a_digest_from_before_streams_is_what_it_was(tmp_path: Path) -> None:
    """The name of these rows as the first version computed it; a published snapshot keeps its name for ever."""
    rows = [
        SnapshotRow(
            digest=f"d{n}",
            split="train",
            source="correction",
            messages=(Message(role="user", content=f"q {n} ü"),),
            completion=f"a {n}",
            row_id=f"f{n}",
            slice="s",
        )
        for n in range(3)
    ]
    assert put(tmp_path, rows).digest == "c50d09087abcd066ba6e050a7e9da0aecb1251d24a5135d427f1e04c48530ca3"


_PUBLISH = (
    "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import random\n"
    "from snapshot_samples import FACTS, row; from data_contracts.snapshots import publish_stream\n"
    "rows = [row(n) for n in range(3000)]; random.Random(int(sys.argv[3])).shuffle(rows)\n"
    "print('go', flush=True)\n"
    "print(publish_stream(Path(sys.argv[1]), (rows[a:a + 70] for a in range(0, 3000, 70)), **FACTS).digest)"
)


def publish_elsewhere(root: Path, seed: str, zone: str) -> str:
    command = [sys.executable, "-c", _PUBLISH, str(root), str(Path(__file__).parent), seed]
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()[-1]


def test_the_digest_is_the_same_in_other_processes_zones_and_orders(tmp_path: Path) -> None:
    found = {
        publish_elsewhere(tmp_path / seed, seed, zone)
        for seed, zone in (("1", "Asia/Tokyo"), ("2", "America/St_Johns"), ("3", "UTC"))
    }
    assert found == {put(tmp_path / "here", [row(n) for n in range(3000)]).digest}


def test_killed_while_publishing_there_is_all_or_nothing_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    expected = put(tmp_path / "reference", [row(n) for n in range(3000)]).digest
    for attempt, wait in enumerate((0.02, 0.1, 0.2, 0.3, 0.4)):
        root = tmp_path / str(attempt)
        command = [sys.executable, "-c", _PUBLISH, str(root), str(Path(__file__).parent), "1"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        visible = [p for p in root.iterdir() if not p.name.startswith(".")] if root.exists() else []
        for folder in visible:
            assert verify(folder).digest == expected
        if root.exists():
            sweep_unfinished(root, min_age_s=0)
            assert [p.name for p in root.iterdir()] == [p.name for p in visible]
        assert put(root, [row(n) for n in range(3000)]).digest == expected


def test_what_is_being_published_now_is_not_swept(tmp_path: Path) -> None:
    def batches() -> Iterator[list[SnapshotRow]]:
        yield ROWS_IN[:5]
        assert sweep_unfinished(tmp_path, min_age_s=0) == 0
        yield ROWS_IN[5:]

    record = publish_stream(tmp_path, batches(), **FACTS)
    assert record.digest == put(tmp_path / "b").digest
    (tmp_path / ".publishing-dead").mkdir()
    assert sweep_unfinished(tmp_path) == 0  # made a moment ago
    assert sweep_unfinished(tmp_path, min_age_s=0) == 1


def test_what_the_batches_count_while_they_are_made_is_in_the_manifest(tmp_path: Path) -> None:
    reasons: dict[str, int] = {}
    sources: dict[str, str] = {}

    def batches() -> Iterator[list[SnapshotRow]]:
        yield ROWS_IN
        reasons["cap"] = 5
        sources["jsonl:/data"] = "2026-01-31T12:00:00Z"

    facts = {**FACTS, "reasons": reasons, "sources": sources, "config_digest": "p" * 64}
    record = publish_stream(tmp_path, batches(), **facts)
    assert (record.reasons, record.sources, record.config_digest) == (reasons, sources, "p" * 64)
    assert record.reasons == {"cap": 5}
    # None of it is what the rows are: the name is that of the rows alone.
    assert record.digest == put(tmp_path / "b").digest


def test_a_failing_source_leaves_nothing(tmp_path: Path) -> None:
    def batches() -> Iterator[list[SnapshotRow]]:
        yield ROWS_IN
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        publish_stream(tmp_path, batches(), **FACTS)
    assert list(tmp_path.iterdir()) == []


def test_many_runs_merge_to_the_same_file(tmp_path: Path) -> None:
    """Enough rows for several runs and row groups, with repeats in other runs."""
    count = 5 * snapshot_publish._RUN_ROWS // 2
    rows = [row(n, split=("train", "target")[n % 7 == 0]) for n in range(count)]
    mixed = [*rows, *rows[:500]]
    random.Random(1).shuffle(mixed)
    record = publish_stream(tmp_path, (mixed[a : a + 1000] for a in range(0, len(mixed), 1000)), **FACTS)
    assert verify(record.path).counts == {
        "target.correction": len(range(0, count, 7)),
        "train.correction": count - len(range(0, count, 7)),
    }
    assert pq.ParquetFile(Path(record.path) / "rows.parquet").metadata.num_row_groups > 2
    leaves = pq.read_table(Path(record.path) / "rows.parquet", columns=["split", "source", "leaf"]).to_pylist()
    keys = [(line["split"], line["source"], line["leaf"]) for line in leaves]
    assert keys == sorted(set(keys))
    assert len(keys) == count
    # Too many ids for the manifest: their number and digest stand there, the ids in the rows.
    assert count > ROW_IDS_INLINE
    assert (record.row_ids, record.row_ids_count, record.feedback_rows) == ((), count, count)
    assert row_ids_of(record.path) == sorted(f"f{n}" for n in range(count))
    assert record.row_ids_digest == digest(sorted(f"f{n}" for n in range(count)))
    assert erase_rows(record.path, {"f7", "f8"}) == 2
    assert verify(record.path).row_ids_count == count - 2


def test_two_different_rows_with_one_digest_in_different_runs_are_an_error(tmp_path: Path) -> None:
    runs = [[row(n) for n in range(snapshot_publish._RUN_ROWS)], [row(3, "target", row_id="other")]]
    with pytest.raises(SnapshotError, match="same digest") as error:
        publish_stream(tmp_path, runs, **FACTS)
    assert "'f3'" in str(error.value)
    assert "'other'" in str(error.value)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (pa.table({"digest": ["d"]}), "without all columns"),
        (pa.Table.from_pylist([{**columns_of(ROWS_IN[0]), "split": "exam"}]), "a row that is none"),
        (pa.Table.from_pylist([{**columns_of(ROWS_IN[0]), "completion": None}], schema=schema()), "a row that is none"),
        (pa.Table.from_pylist([{**columns_of(ROWS_IN[0]), "row_id": 7}]), "a row that is none"),
    ],
)
def test_a_batch_that_holds_no_rows_is_one_clear_error(tmp_path: Path, batch: pa.Table, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        publish_stream(tmp_path, [batch], **FACTS)
    assert list(tmp_path.iterdir()) == []


_MEMORY = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import pyarrow.parquet, numpy
from snapshot_samples import FACTS, row
from data_contracts.snapshots import publish_stream
publish_stream(Path(sys.argv[1]) / "warm", [[row(n) for n in range(100)]], **FACTS)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batches = ([row(n, completion="x" * 2000 + str(n)) for n in range(a, a + 500)] for a in range(0, 60_000, 500))
publish_stream(Path(sys.argv[1]), batches, **FACTS)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """60,000 rows of 2 kB (120 MB of text) in far less memory than they take."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 400


def test_rows_come_in_batches_too(tmp_path: Path) -> None:
    record = put(tmp_path, [row(n, ("train", "target")[n % 2]) for n in range(9000)])
    batches = list(iter_rows(record.path, "train"))
    assert len(batches) > 1
    assert [r for batch in batches for r in batch] == read_rows(record.path, "train")
    erase_rows(record.path, {"f1"})
    with pytest.raises(SnapshotError, match="erased"):
        next(iter_rows(record.path))


def test_rows_of_another_digest_are_found_at_the_end_of_the_batches(tmp_path: Path) -> None:
    record, other = put(tmp_path), put(tmp_path, [row(n, completion="poison") for n in range(20)])
    (Path(record.path) / "rows.parquet").write_bytes((Path(other.path) / "rows.parquet").read_bytes())
    with pytest.raises(SnapshotError, match="does not match its digest"):
        list(iter_rows(record.path))
    with pytest.raises(SnapshotError, match="does not match its digest"):
        load_dataset_split(record.path, "train")
    assert not list(Path(record.path).glob("arrow/*.arrow"))


def test_datasets_maps_a_split_into_memory_offline(tmp_path: Path) -> None:
    record = put(
        tmp_path / "snapshots", [row(n, ("train", "target")[n % 5 == 0], completion="x" * 3000) for n in range(4000)]
    )
    code = (
        "import json, sys, pyarrow as pa; from data_contracts.snapshots import load_dataset_split\n"
        "before = pa.total_allocated_bytes(); data = load_dataset_split(sys.argv[1], 'train')\n"
        "data = load_dataset_split(sys.argv[1], 'train'); held = pa.total_allocated_bytes() - before\n"
        "print(json.dumps([len(data), data[7], data.cache_files, held, data.data.nbytes]))"
    )
    # No network, no home: nothing of it is needed, and nothing is left in a cache elsewhere.
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "http_proxy": "http://127.0.0.1:9",
    }
    done = subprocess.run([sys.executable, "-c", code, record.path], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    count, first, files, held, size = json.loads(done.stdout.splitlines()[-1])
    rows = read_rows(record.path, "train")
    assert count == len(rows) == 3200
    assert first == columns_of(rows[7])
    assert [Path(file["filename"]) for file in files] == [Path(record.path) / "arrow" / "train.arrow"]
    # Mapped, not read: Arrow holds next to nothing of these megabytes.
    assert size > 9_000_000
    assert held < size / 10
    assert not list((tmp_path / "home").rglob("*.arrow"))


def test_plain_datasets_reads_the_file_of_rows(tmp_path: Path) -> None:
    from datasets import load_dataset

    record = put(tmp_path / "snapshots")
    file = str(Path(record.path) / "rows.parquet")
    data = load_dataset("parquet", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(data["row_id"]) == sorted(r.row_id for r in ROWS_IN)


def test_what_was_mapped_goes_with_the_erased_rows(tmp_path: Path) -> None:
    record = put(tmp_path)
    data = load_dataset_split(record.path, "train")
    mapped = Path(data.cache_files[0]["filename"])
    assert mapped.exists()
    erase_rows(record.path, {"f3"})
    assert not mapped.exists()
    assert not [p for p in Path(record.path).rglob("*") if p.is_file() and b"secret question 3 " in p.read_bytes()]
    with pytest.raises(SnapshotError, match="erased"):
        load_dataset_split(record.path, "train")


def test_leaf_sets_are_sets(tmp_path: Path) -> None:
    digests = [digest(n) for n in range(500)]
    leaves, ids = LeafSet(), IdSet()
    for name in [*digests, *digests[:100]]:
        leaves.add(name)
        ids.add(name)
    ids.add("")
    assert [leaf.hex() for part in leaves.sorted_parts() for leaf in part] == sorted(digests)
    assert ids.facts(1000) == {
        "row_ids": tuple(sorted(digests)),
        "row_ids_count": 500,
        "row_ids_digest": set_digest(digests),
    }
    assert IdSet().facts(10) == {"row_ids": (), "row_ids_count": 0, "row_ids_digest": ""}
    with pytest.raises(ValueError, match="SHA-256"):
        leaves.add("abcd")


def test_sources_and_config_survive_a_round_trip(tmp_path: Path) -> None:
    record = put(tmp_path, sources={"store": "41", "mlflow": "1700000000"}, config_digest="f" * 64)
    assert read_manifest(record.path) == record
    assert record.sources == {"mlflow": "1700000000", "store": "41"}
