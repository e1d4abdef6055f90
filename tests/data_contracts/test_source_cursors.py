"""No late feedback is lost and none counts twice: late files, late halves, crashes, duplicates, files that change."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_samples import KEY, MODEL, memory_file, read_all, rows_of, spoken, written
from sqlalchemy import Connection

from configs.errors import InputError, SourceError
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message, utc_now
from data_contracts.sources.base import Batch, Cursor, MemorySource
from data_contracts.sources.export import stored
from data_contracts.sources.files import SETTLED_S, FileSource, file_key
from data_contracts.sources.ingest import ingest
from data_contracts.sources.lines import parse_line
from data_contracts.sources.store_source import StoreSource
from store import feedback, interactions, sources
from store.engine import Store


def line(n: int, text: str = "") -> bytes:
    row = {"interaction": {"messages": [{"role": "user", "content": f"q{n}{text}"}], "answer": "a"}}
    return json.dumps({**row, "feedback": [{"kind": "correction", "text": f"c{n}"}]}).encode() + b"\n"


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["feedback_text"] for row in rows]


def follow(path: Path | str, cursor: Cursor | None = None) -> tuple[list[str], list[str], Cursor]:
    """`(texts, errors, cursor)` of a pull; the cursor goes through JSON, as the store keeps it."""
    rows, errors, after = read_all(FileSource(str(path), "jsonl", follow=True), cursor)
    return texts(rows), [str(e) for e in errors], json.loads(json.dumps(after))


def everything(store: Store) -> list[tuple[str, list[tuple[str, str | None]]]]:
    pairs = stored(store, MODEL)
    return sorted((i.id, sorted((f.id, f.text) for f in said)) for i, said in pairs)


# --- files ---------------------------------------------------------------------------------------


def test_a_late_file_with_an_old_date_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(line(1))
    found, _, cursor = follow(tmp_path)
    assert found == ["c1"]
    late = tmp_path / "a.jsonl"
    late.write_bytes(line(2))
    os.utime(late, (1, 1))
    found, _, cursor = follow(tmp_path, cursor)
    assert found == ["c2"]
    assert follow(tmp_path, cursor)[0] == []


def test_of_lines_that_were_appended_only_the_new_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2))
    _, _, cursor = follow(path)
    with path.open("ab") as handle:
        handle.write(line(3))
    found, _, cursor = follow(path, cursor)
    assert found == ["c3"]
    with path.open("ab") as handle:
        handle.write(b"x" * (5 << 20) + b"\n" + line(4))
    found, errors, cursor = follow(path, cursor)
    assert (found, len(errors)) == (["c4"], 1)
    assert "line 4" in errors[0]
    with path.open("ab") as handle:
        handle.write(line(5))
    assert follow(path, cursor)[:2] == (["c5"], [])


def test_a_line_that_is_still_being_written_is_named_and_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2)[:30])
    found, errors, cursor = follow(path)
    assert found == ["c1"]
    assert "line 2: the last line is not finished" in errors[0]
    assert follow(path, cursor)[0] == []
    path.write_bytes(line(1) + line(2) + line(3))
    assert follow(path, cursor)[:2] == (["c2", "c3"], [])


def test_a_file_whose_beginning_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1) + line(2))
    _, _, cursor = follow(path)
    path.write_bytes(line(7) + line(2) + line(3))
    found, _, cursor = follow(path, cursor)
    assert found == ["c7", "c2", "c3"]
    # The same size and date: only the time of the change tells, and no program can set that.
    before = path.stat()
    path.write_bytes(line(8) + line(2) + line(3))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert follow(path, cursor)[0] == ["c8", "c2", "c3"]


def test_a_change_within_a_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    """Written over in place with as many bytes: what the file system says of the file may stay the same."""
    path = tmp_path / "x.json"
    fs = fsspec.filesystem("file")
    theirs, ours = [], []
    for n in range(10, 99):
        path.write_bytes(line(n))
        theirs.append(fs.ukey(str(path)))
        ours.append(file_key(fs, str(path)))
    assert len(set(ours)) == len(ours)
    if len(set(theirs)) < len(theirs):  # a clock with a tick: the keys that were given twice are not relied on
        assert all(key.startswith("fresh-") for key in ours)
    later = path.stat().st_ctime - time.time() + SETTLED_S
    time.sleep(max(later, 0) + 0.05)
    assert file_key(fs, str(path)) == file_key(fs, str(path)) == theirs[-1][:24]


def test_what_was_only_touched_gives_nothing_new(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(line(1))
    _, _, cursor = follow(path)
    os.utime(path, (5, 5))
    found, _, after = follow(path, cursor)
    assert found == []
    assert after != cursor


def test_folders_and_globs_skip_what_is_hidden_or_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.jsonl.gz").write_bytes(gzip.compress(line(1)))
    (tmp_path / ".b.jsonl").write_bytes(line(2))
    (tmp_path / "_c.jsonl").write_bytes(line(3))
    (tmp_path / "d.txt").write_bytes(line(4))
    (tmp_path / "e.jsonl").write_bytes(line(5))
    assert sorted(follow(tmp_path)[0]) == ["c1", "c5"]
    assert follow(f"{tmp_path}/*.jsonl")[0].count("c5") == 1
    assert follow(tmp_path / "none")[0] == []
    with pytest.raises(InputError, match="cannot be read"):
        list(FileSource(str(tmp_path / "none")).read())
    with pytest.raises(InputError, match="address"):
        list(FileSource("nosuch://x").read())


def test_a_file_that_cannot_be_opened_is_a_source_that_is_down(tmp_path: Path) -> None:
    broken = tmp_path / "a.jsonl"
    broken.symlink_to(broken)
    with pytest.raises(SourceError, match="cannot be read now"):
        follow(f"{tmp_path}/*.jsonl")
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(line(1) * 500)[:-30])
    with pytest.raises(SourceError, match="cannot be read now"):
        follow(cut)
    body = bytearray(gzip.compress(line(1) * 500))
    body[20:40] = b"x" * 20
    cut.write_bytes(body)
    with pytest.raises(SourceError, match="cannot be read now"):
        follow(cut)
    with pytest.raises(InputError, match="web server"):
        follow("http://127.0.0.1:9/x.jsonl")


def test_a_torn_file_is_named_and_keeps_no_other_out(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(line(n) for n in range(20, 400)))
    garbled = whole[:20] + b"x" * 20 + whole[40:]
    torn = {
        "b.jsonl.gz": whole[:-40],
        "c.jsonl.gz": garbled,
        "d.jsonl.gz": b"\x1f\x8c" + whole[2:],
        "e.json.gz": whole[:30],
    }
    for name, body in torn.items():
        (tmp_path / name).write_bytes(body)
    (tmp_path / "a.jsonl").write_bytes(line(1))
    (tmp_path / "z.jsonl").write_bytes(line(2))
    found, errors, cursor = follow(tmp_path)
    assert {"c1", "c2"} <= set(found)
    assert [e.split(": ")[0] for e in errors] == [str(tmp_path / name) for name in sorted(torn)]
    assert all("the file is damaged or not finished" in e for e in errors)
    again, errors, cursor = follow(tmp_path, cursor)
    assert {"c1", "c2"}.isdisjoint(again)
    assert len(errors) == 4  # said again with every look until it is mended or gone
    for name in ("c.jsonl.gz", "d.jsonl.gz", "e.json.gz"):
        (tmp_path / name).unlink()
    (tmp_path / "b.jsonl.gz").write_bytes(whole)
    mended, errors, cursor = follow(tmp_path, cursor)
    assert errors == []
    assert set(found) | set(again) | set(mended) >= {"c1", "c2", *(f"c{n}" for n in range(20, 400))}
    assert follow(tmp_path, cursor)[0] == []


def test_the_import_of_a_folder_goes_on_behind_a_torn_file_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line(1))[:-4])
    (tmp_path / "b.jsonl").write_bytes(line(2))
    for format in ("jsonl", "auto"):
        rows, errors, _ = read_all(FileSource(str(tmp_path), format))
        assert "c2" in texts(rows)
        assert [e.origin for e in errors] == [str(tmp_path / "a.jsonl.gz")]


def test_what_was_read_before_an_outage_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line(1))
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "b.jsonl")
    reading = FileSource(f"{tmp_path}/*.jsonl", "jsonl", follow=True).read()
    first = next(reading)
    assert texts(rows_of([first])) == ["c1"]
    with pytest.raises(SourceError, match="cannot be read now"):
        next(reading)
    (tmp_path / "b.jsonl").unlink()
    assert follow(f"{tmp_path}/*.jsonl", first.cursor)[0] == []


@pytest.mark.parametrize("format", ["jsonl", "sharegpt", "csv", "parquet", "argilla"])
def test_after_a_crash_at_any_batch_the_rest_is_read_exactly_once(format: str) -> None:
    interaction = Interaction(
        id="i", created_at=utc_now(), model=MODEL, principal="ann", conversation="c", answer="a",
        messages=(Message(role="user", content="q"),),
    )  # fmt: skip
    pairs = []
    for n in range(20):
        said = Feedback(
            id=f"f{n}", interaction_id=f"i{n}", kind=FeedbackKind.CORRECTION, created_at=utc_now(), principal="bob",
            text=f"c{n}",
        )  # fmt: skip
        pairs.append((interaction.model_copy(update={"id": f"i{n}"}), [said]))
    source = FileSource(written(format, pairs, FeedbackKind.CORRECTION), batch_rows=3)
    batches = list(source.read())
    assert texts(rows_of(batches)) == [f"c{n}" for n in range(20)]
    assert len(batches) >= 7
    for n in range(len(batches)):
        cursor = json.loads(json.dumps(batches[n].cursor))
        assert texts(rows_of(source.read(cursor))) == texts(rows_of(batches[n + 1 :]))


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["append", "rewrite", "old", "delete", "read", "crash"]), st.integers(0, 2), st.integers(0, 9)
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ACTS, st.sampled_from(["jsonl", "json"]))
def test_whatever_happens_to_files_all_that_is_there_was_read(tmp_path: Path, acts: Any, kind: str) -> None:
    """Files grow, are replaced by others of the same size, get old dates and go; readers die between two batches."""
    folder = tmp_path / os.urandom(8).hex()
    folder.mkdir()
    files: dict[int, list[int]] = {}
    delivered: set[str] = set()
    cursor: Cursor = {}

    def write(n: int) -> None:
        rows = [line(k).rstrip() for k in files[n]]
        body = b"".join(row + b"\n" for row in rows) if kind == "jsonl" else b"[" + b",".join(rows) + b"]"
        (folder / f"{n}.{kind}").write_bytes(body)

    for act, n, k in [*acts, ("read", 0, 0)]:
        path = folder / f"{n}.{kind}"
        if act == "append":
            files.setdefault(n, []).append(10 * (n + 1) + k)
            write(n)
        elif act == "rewrite" and n in files:
            files[n] = [10 * (n + 1) + (k + i) % 10 for i in range(len(files[n]))]
            write(n)
        elif act == "old" and n in files:
            os.utime(path, (1, 1))
        elif act == "delete" and n in files:
            del files[n]
            path.unlink()
        elif act in ("read", "crash"):
            for batch in FileSource(str(folder), "jsonl", follow=True, batch_rows=2).read(cursor):
                delivered.update(texts(rows_of([batch])))
                cursor = json.loads(json.dumps(batch.cursor))
                if act == "crash":
                    break
        if act == "read":
            assert {f"c{k}" for rows in files.values() for k in rows} <= delivered


# --- our store -----------------------------------------------------------------------------------


def put(store: Store, *rows: Interaction | Feedback) -> None:
    with store.write() as conn:
        for row in rows:
            if isinstance(row, Interaction):
                interactions.insert(conn, [row])
            else:
                feedback.insert(conn, [(MODEL, row)])


def pairs_of(batches: list[Batch]) -> list[tuple[str, str | None]]:
    return [(row["interaction_id"], row["feedback_id"]) for row in rows_of(batches)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_each_pair_comes_once_whichever_half_was_late(tmp_path: Path, data: st.DataObject) -> None:
    """Interactions and feedback are committed in any order, with reads between them."""
    store = Store.open(f"sqlite:///{tmp_path}/{os.urandom(8).hex()}.db")
    pairs = data.draw(st.lists(spoken([FeedbackKind.CORRECTION, FeedbackKind.THUMB]), max_size=4))
    rows: list[Any] = [row for interaction, said in pairs for row in (interaction, *said)]
    order = data.draw(st.permutations(rows))
    reads = data.draw(st.sets(st.integers(0, len(rows))))
    size = data.draw(st.integers(1, 3))
    cursor: Cursor | None = None
    found: list[tuple[str, str | None]] = []
    for n, row in enumerate([*order, None]):
        if n in reads or row is None:
            for batch in StoreSource(store, MODEL, batch_rows=size).read(cursor):
                found += pairs_of([batch])
                cursor = json.loads(json.dumps(batch.cursor))
        if row is not None:
            put(store, row)
    wanted = Counter((i.id, f.id) for i, said in pairs for f in said)
    assert Counter(pair for pair in found if pair[1] is not None) == wanted
    # An interaction comes at least once, by itself or with what waited for it.
    assert {i for i, _ in found} == {i.id for i, _ in pairs}
    assert list(StoreSource(store, MODEL).read(cursor)) == []
    store.close()


def test_the_store_as_a_source_on_both_databases(store: Store) -> None:
    asked = parse_line({"interaction": {"messages": [{"role": "user", "content": "q"}], "answer": "a"}})
    ingest(store, MODEL, KEY, MemorySource([asked]))
    ((interaction, _),) = stored(store, MODEL)
    put(
        store,
        Feedback(
            id="late", interaction_id="x" * 9, kind=FeedbackKind.THUMB, created_at=utc_now(), principal="b", thumb=1
        ),
    )
    (first,) = StoreSource(store, MODEL).read()
    assert pairs_of([first]) == [(interaction.id, None)]
    put(store, interaction.model_copy(update={"id": "x" * 9}))
    (second,) = StoreSource(store, MODEL).read(first.cursor)
    assert pairs_of([second]) == [("x" * 9, "late")]
    assert list(StoreSource(store, "other").read({"seq": 3})) == []
    copied = ingest(store, MODEL, KEY, StoreSource(store, MODEL), dry_run=True)
    assert (copied.rejected, copied.interactions, copied.feedback) == (0, 1, 1)  # on an id we did not make


# --- into the store -------------------------------------------------------------------------------


def test_rows_and_cursor_are_written_together_or_not_at_all(sqlite_store: Store) -> None:
    """A crash in each of the transactions; what is there afterwards is what an undisturbed import leaves."""
    lines = [parse_line(json.loads(line(n))) for n in range(10)]
    source = MemorySource(lines, batch_rows=3)
    seen: list[int] = []
    for crash in range(4):
        calls = 0

        def save(conn: Connection, cursor: Cursor, crash: int = crash) -> None:
            nonlocal calls
            sources.save_cursor(conn, MODEL, source.name, cursor)
            if calls == crash:
                raise KeyboardInterrupt
            calls += 1

        with sqlite_store.read() as conn:
            cursor = sources.cursor(conn, MODEL, source.name)
        with pytest.raises(KeyboardInterrupt):
            ingest(sqlite_store, MODEL, KEY, source, cursor=cursor, save=save)
        with sqlite_store.read() as conn:
            kept = sources.cursor(conn, MODEL, source.name) or {"lines": 0}
        assert kept["lines"] == len(everything(sqlite_store))
        seen.append(kept["lines"])
        if crash == 1:
            break
    assert seen == [0, 3]
    ingest(sqlite_store, MODEL, KEY, source, cursor={"lines": 3})
    assert len(everything(sqlite_store)) == 10


def test_a_lost_cursor_costs_a_second_look_and_nothing_else(sqlite_store: Store) -> None:
    lines = [parse_line(json.loads(line(n))) for n in range(7)]
    source = MemorySource(lines, batch_rows=2)
    first = ingest(sqlite_store, MODEL, KEY, source)
    before = everything(sqlite_store)
    again = ingest(sqlite_store, MODEL, KEY, source, cursor={"lines": 2})
    assert (first.feedback, again.feedback, again.repeated) == (7, 0, 10)
    assert everything(sqlite_store) == before


def test_duplicates_across_files_and_lines_count_once(sqlite_store: Store, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(line(1) + line(2) + line(1))
    report = ingest(sqlite_store, MODEL, KEY, FileSource(str(tmp_path)))
    assert (report.interactions, report.feedback, report.repeated) == (2, 2, 8)


def test_a_row_the_store_refuses_costs_only_itself_and_keeps_the_cursor(sqlite_store: Store) -> None:
    from data_contracts.sources import lines as checks

    lines = [parse_line(json.loads(line(n))) for n in range(5)]
    # Past our own checks, as a source of somebody else's might hand it on.
    bad = lines[3].interaction.model_copy(update={"conversation": "x" * 500})
    lines[3] = checks.Line.model_construct(interaction=bad, feedback=lines[3].feedback)
    source = MemorySource(lines)
    report = ingest(sqlite_store, MODEL, KEY, source, save=lambda conn, at: sources.save_cursor(conn, MODEL, "s", at))
    assert (report.feedback, report.rejected, report.errors[0].line) == (4, 1, 4)
    with sqlite_store.read() as conn:
        assert sources.cursor(conn, MODEL, "s") == {"lines": 5}


def test_a_dry_run_counts_the_same_and_writes_nothing(sqlite_store: Store) -> None:
    lines = [parse_line(json.loads(line(n))) for n in range(3)]
    dry = ingest(sqlite_store, MODEL, KEY, MemorySource(lines), dry_run=True)
    assert everything(sqlite_store) == []
    wet = ingest(sqlite_store, MODEL, KEY, MemorySource(lines))
    assert dry == wet
    assert ingest(sqlite_store, MODEL, KEY, MemorySource(lines), dry_run=True).repeated == 6


def test_labels_made_elsewhere_join_what_was_served_here(sqlite_store: Store) -> None:
    """A task exported for labelling comes back with a correction: it points to the very request."""
    ingest(sqlite_store, MODEL, KEY, MemorySource([parse_line({**json.loads(line(1)), "feedback": []})]))
    ((served, _),) = stored(sqlite_store, MODEL)
    task = {
        "data": {"request_id": served.id, "messages": [{"role": "user", "content": "q1"}], "answer": "a"},
        "annotations": [{"result": [{"from_name": "correction", "type": "textarea", "value": {"text": ["b"]}}]}],
    }
    report = ingest(sqlite_store, MODEL, KEY, FileSource(memory_file("x.json", json.dumps([task]).encode())))
    assert (report.interactions, report.feedback) == (0, 1)
    assert [(i.id, [f.text for f in said]) for i, said in stored(sqlite_store, MODEL)] == [(served.id, ["b"])]


# --- size ----------------------------------------------------------------------------------------

PEAK = """
import json, resource, sys
from data_contracts.sources.files import SETTLED_S, FileSource, file_key
from data_contracts.sources.base import schema

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path, n = sys.argv[1], int(sys.argv[2])
row = {"messages": [{"role": "user", "content": "What is it? " * 8}], "answer": "It is what it is. " * 8}
with open(path, "w") as out:
    out.write("[\\n" if path.endswith(".json") else "")
    for k in range(n):
        said = [{"kind": "correction", "text": f"Another answer {k}."}]
        last = "" if not path.endswith(".json") else (",\\n" if k < n - 1 else "\\n]")
        out.write(json.dumps({"interaction": {**row, "id": str(k)}, "feedback": said}) + (last or "\\n"))
source = FileSource(path)
it = source.read()
rows = next(it).rows.num_rows
before = peak()
rows += sum(batch.rows.num_rows for batch in it)
print(json.dumps({"rows": rows, "grown_mb": peak() - before}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["big.jsonl", "big.json"])
def test_a_hundred_thousand_lines_stream_in_bounded_memory(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / name), "100000"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["rows"] == 100_000
    # The file has some 40 MB, the rows in memory several times that.
    assert found["grown_mb"] < 30, found
