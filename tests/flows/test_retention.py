"""Retention: what is older than its time goes; snapshots behind a version in service keep their rows."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from configs.errors import ConfigError
from data_contracts.ids import unnamed_caller
from data_contracts.records import Cause, QuarantinedRow, SnapshotRow, utc_now
from data_contracts.snapshot_files import DERIVED
from data_contracts.snapshots import erase_rows, publish, read_manifest, read_rows, remaining_rows
from flows import curating
from flows import erasure as job
from flows.context import Context, open_context
from flows.erasure_scan import scan
from flows.observer import PrintObserver
from flows.retention import cutoffs, retain
from flows.watch import _retain
from models.embedding_cache import CachedEmbedder
from monitoring.erasure_deadline import retire_overdue
from store import (
    audit,
    drift,
    erasure,
    feedback,
    incidents,
    interactions,
    people,
    quarantine,
    requests,
    reviews,
    snapshots,
)
from store.retention import drop_feedback
from store.tables import first_seen
from tests.flows.erasure_world import NAME, PROMPT, TEXTS, World, _ask, _say, build, settled, world_config

ALL = {"interaction": 30, "feedback": 30, "quarantine": 30, "report": 30, "run": 30}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = build(tmp_path / "state", retention={"ttl_days": ALL})
    yield built
    built.context.store.close()


def later(days: float) -> object:
    return utc_now() + timedelta(days=days)


def logged(context: Context) -> Counter[str]:
    """What the audit log says retention deleted."""
    with context.store.read() as conn:
        entries = [entry for entry in audit.entries(conn) if entry.action == "retention.deleted"]
    return Counter(
        kind for entry in entries for kind, n in entry.detail.items() if isinstance(n, int) for _ in range(n)
    )


def test_without_limits_nothing_goes(tmp_path: Path) -> None:
    world = build(tmp_path / "state")
    assert cutoffs(world.context) == {}
    assert retain(world.context, now=utc_now() + timedelta(days=9999)) == {}
    world.context.store.close()


def test_a_dry_run_counts_and_deletes_nothing(world: World) -> None:
    now = utc_now() + timedelta(days=31)
    planned = retain(world.context, dry_run=True, now=now)
    assert planned["feedback"] == 10
    assert planned["interaction"] == 0  # feedback points to each of them still
    assert planned["quarantine"] == 1
    assert (planned["run"], planned["report"]) == (2, 2)
    assert retain(world.context, dry_run=True, now=now) == planned
    with world.context.store.read() as conn:
        assert interactions.count(conn, world.context.model) == 8


def test_young_things_stay(world: World) -> None:
    before = scan(world.context, NAME, TEXTS).findings
    assert not any(retain(world.context, now=utc_now() + timedelta(days=29)).values())
    assert scan(world.context, NAME, TEXTS).findings == before


def test_old_things_go_and_are_counted_in_the_audit_log(world: World) -> None:
    counts = retain(world.context, now=utc_now() + timedelta(days=31))
    assert (counts["feedback"], counts["interaction"]) == (10, 7)  # an open incident quotes the eighth
    with world.context.store.read() as conn:
        audit.verify(conn)
    assert logged(world.context) == {kind: n for kind, n in counts.items() if n}
    assert not list(world.context.state.reports.glob("*.html"))
    assert not list(world.context.state.runs.iterdir())
    assert not any(retain(world.context, now=utc_now() + timedelta(days=31)).values())


def test_what_a_version_in_service_was_taught_stays_in_its_snapshot_until_it_leaves(world: World) -> None:
    folders = [world.context.state.snapshots / d for d in (world.snapshot, world.clean_snapshot)]
    assert retain(world.context, now=utc_now() + timedelta(days=31))["snapshot_rows"] == 0
    assert [len(read_rows(folder)) for folder in folders] == [8, 5]
    with world.context.store.write() as conn:
        erasure.taint(conn, [world.version], "e", utc_now())
        retire_overdue(conn, world.context.model, utc_now() + timedelta(days=1), actor="test")
    # Version 1 serves now; nothing goes back to version 2 any more. Its incident's row has no time limit.
    assert retain(world.context, now=utc_now() + timedelta(days=31))["snapshot_rows"] == 7
    assert [len(remaining_rows(folder)) for folder in folders] == [1, 5]


def test_the_open_retrains_folder_stays(world: World) -> None:
    with world.context.store.read() as conn:
        request = requests.current(conn, world.context.model)
    assert request is not None
    folder = world.context.run_dir(request.id)
    os.utime(folder, (0, 0))
    retain(world.context, now=utc_now() + timedelta(days=31))
    assert folder.is_dir()


def test_a_reviewers_word_stays_as_long_as_what_it_is_about(tmp_path: Path) -> None:
    world = build(tmp_path / "state", retention={"ttl_days": {"quarantine": 30}})
    store, model = world.context.store, world.context.model
    dropped, released, incident, lost = world.others[0], world.others[1], world.theirs["incident"], "of-nothing"
    rows = [QuarantinedRow(row_id=i, digest="d", reason="r") for i in (dropped, released, incident, lost)]
    with store.write() as conn:
        quarantine.put(conn, model, rows, None)
        for ident in (dropped, incident, lost):
            quarantine.set_status(conn, ident, "dropped")
        quarantine.set_status(conn, released, "released")
    now = utc_now() + timedelta(days=31)
    assert retain(world.context, dry_run=True, now=now) == {"quarantine": 2}
    assert retain(world.context, now=now) == {"quarantine": 2}  # the held row, and the word on nothing
    with store.read() as conn:
        left = quarantine.statuses(conn, model)
    assert left == {dropped: "dropped", released: "released", incident: "dropped"}
    store.close()


def test_the_live_snapshot_of_another_model_in_the_store_stays_whole(tmp_path: Path) -> None:
    world = build(tmp_path / "state")
    folder = world.context.state.snapshots / world.snapshot
    other = open_context(world_config(tmp_path / "state", model={"name": "other-bot"}, retention={"ttl_days": ALL}))
    with world.context.store.write() as conn:
        assert len(drop_feedback(conn, world.context.model, utc_now() + timedelta(days=1))) == 10
    assert other.model != world.context.model
    assert retain(other, now=utc_now() + timedelta(days=31))["snapshot_rows"] == 0
    assert len(read_rows(folder)) == 8
    other.store.close()
    world.context.store.close()


def test_a_limit_beyond_the_end_of_dates_is_refused(tmp_path: Path) -> None:
    for limits in ({"ttl_days": {"feedback": 999_999}}, {"erasure_deadline_days": 999_999}):
        with pytest.raises(ConfigError, match="36500"):
            world_config(tmp_path, retention=limits)
    assert cutoffs(open_context(world_config(tmp_path, retention={"ttl_days": {"feedback": 36_500}})))


def test_a_file_retention_cannot_reach_stops_nothing(world: World) -> None:
    context, reports = world.context, world.context.state.reports
    whole = len(list(reports.glob("*.html")))
    (reports / "loop.html").symlink_to(reports / "loop.html")  # to look behind it is an OSError
    (reports / "gone.html").symlink_to(reports / "nowhere")
    (reports / "folder.html").mkdir()
    (context.state.runs / "link").symlink_to(reports)
    observer = PrintObserver(quiet=True)
    now = a_month_later()
    assert retain(context, dry_run=True, now=now)["report"] == whole + 3
    counts = retain(context, now=now)
    assert (counts["feedback"], counts["report"]) == (10, whole + 2)
    assert logged(context) == {kind: n for kind, n in counts.items() if n}
    assert [path.name for path in reports.iterdir()] == ["folder.html"]
    assert [path.name for path in context.state.runs.iterdir()] == ["link"]
    assert not any(retain(context, now=now).values())
    assert (_retain(context, observer), observer.lines) == ({}, [])


def test_a_pass_that_fails_half_way_has_said_what_it_deleted_and_emptied_the_log(world: World) -> None:
    """Its entry is in the transaction that deletes: nothing that comes after can lose it."""
    context = world.context
    wal = context.state.root / "tidemill.db-wal"
    (context.state.snapshots / world.snapshot / "rows-left.parquet").mkdir()  # no file that could be unlinked
    with context.store.write() as conn:
        erasure.taint(conn, [world.version], "e", utc_now())
        retire_overdue(conn, context.model, utc_now() + timedelta(days=1), actor="test")
    with pytest.raises(OSError, match="rows-left"):
        retain(context, now=a_month_later())
    assert logged(context) == {"feedback": 10}
    assert wal.stat().st_size == 0


def a_month_later() -> datetime:
    return utc_now() + timedelta(days=31)


def test_a_closed_incident_goes_with_the_rows_it_taught_where_no_live_version_stands_on_them(tmp_path: Path) -> None:
    world = build(tmp_path / "state", retention={"ttl_days": {**ALL, "incident": 30}})
    store, model, folder = world.context.store, world.context.model, world.context.state.snapshots / world.snapshot
    with store.write() as conn:
        incidents.set_status(conn, world.theirs["incident"], "fixed")
    assert retain(world.context, dry_run=True, now=a_month_later())["incident"] == 1
    counts = retain(world.context, now=a_month_later())
    assert (counts["incident"], counts["interaction"], counts["snapshot_rows"]) == (1, 8, 0)
    with store.write() as conn:
        assert [i.id for i in incidents.all(conn, model)] == [world.theirs["opened"]]  # an open one never goes
        assert logged(world.context)["incident"] == 1
        erasure.taint(conn, [world.version], "e", utc_now())
        retire_overdue(conn, model, utc_now() + timedelta(days=1), actor="test")
    assert len(read_rows(folder)) == 8
    assert retain(world.context, now=a_month_later())["snapshot_rows"] == 8
    assert remaining_rows(folder) == []
    store.close()


def test_settled_review_items_go(tmp_path: Path) -> None:
    world = build(tmp_path / "state", retention={"ttl_days": {"review": 30}})
    assert retain(world.context, now=a_month_later()) == {"review": 0}
    with world.context.store.write() as conn:
        item = reviews.find(conn, "quarantine", world.theirs["held"])
        assert item is not None
        reviews.set_status(conn, item.id, "done", "reject")
    assert retain(world.context, dry_run=True, now=a_month_later()) == {"review": 1}
    assert retain(world.context, now=a_month_later()) == {"review": 1}
    with world.context.store.read() as conn:
        assert reviews.list_items(conn, world.context.model) == []
        assert quarantine.statuses(conn, world.context.model) == {world.theirs["held"]: "held"}
    world.context.store.close()


def test_references_no_monitor_uses_go(tmp_path: Path) -> None:
    world = build(tmp_path / "state", retention={"ttl_days": {"reference": 30}})
    folder = world.context.state.drift
    with world.context.store.read() as conn:
        used = drift.references(conn)[world.context.model]
    for suffix in (".json", ".npz"):
        shutil.copy(folder / f"{used}{suffix}", folder / f"{'0' * 64}{suffix}")
    shutil.copy(folder / f"{used}.json", folder / f".{used}.json.4711")  # a killed process left it
    assert retain(world.context) == {"reference": 0}
    assert retain(world.context, dry_run=True, now=a_month_later()) == {"reference": 2}
    assert retain(world.context, now=a_month_later()) == {"reference": 2}
    assert sorted(path.name for path in folder.iterdir()) == [f"{used}.json", f"{used}.npz"]
    world.context.store.close()


class Ones:
    """An encoder to which all texts are the same."""

    def encode(self, texts: Sequence[str], batch: int = 32) -> np.ndarray:
        return np.ones((len(texts), 2), dtype=np.float32)


def test_caches_go_by_their_last_use_but_not_under_a_running_retrain(tmp_path: Path) -> None:
    world = build(tmp_path / "state", retention={"ttl_days": {"cache": 30}})
    context, cache = world.context, world.context.state.cache
    CachedEmbedder(cache / "embeddings.sqlite", "m", Ones)(["a", "b"])
    (cache / "replay").mkdir()
    for name, age in (("old", 40), ("new", 0)):
        path = cache / "replay" / f"{name}.json"
        path.write_text('{"answer": "a"}')
        os.utime(path, ((utc_now() - timedelta(days=age)).timestamp(),) * 2)
    (answers,) = (cache / "evaluation").glob("*.jsonl")
    earlier = {"item": "i", "decoding": "d", "answer": "x", "at": (utc_now() - timedelta(days=40)).timestamp()}
    answers.write_text("{torn\n" + json.dumps(earlier) + "\n" + answers.read_text())
    assert retain(context, dry_run=True) == {"cache": 3}
    assert retain(context) == {"cache": 3}
    assert [path.name for path in (cache / "replay").iterdir()] == ["new.json"]
    assert len([line for line in answers.read_text().splitlines() if line.strip()]) == 2
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="manual", at=utc_now()), status="ready")
        claimed = requests.claim(conn, request.id, "worker", 60.0)
        assert claimed is not None
    assert retain(context, now=a_month_later()) == {"cache": 0}
    with context.store.write() as conn:
        requests.finish(conn, request.id, claimed.token, "failed", "error")
    # Two vectors, two answers, one replay answer, and two files of other caches.
    assert retain(context, dry_run=True, now=a_month_later()) == {"cache": 7}
    assert retain(context, now=a_month_later()) == {"cache": 7}
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["embeddings.sqlite"]
    assert retain(context, now=a_month_later()) == {"cache": 0}
    context.store.close()


@pytest.fixture
def aged(tmp_path: Path) -> Iterator[World]:
    """A person who asked two months ago and a month ago, and came back now with a correction; an unnamed one too."""
    context = open_context(world_config(tmp_path / "state", retention={"ttl_days": {"interaction": 30}}))
    world = World(context)
    made = [_ask(world, NAME, PROMPT) for _ in range(3)]
    ages = [timedelta(days=60), timedelta(days=31), timedelta(0)]
    asked = [one.model_copy(update={"created_at": utc_now() - age}) for one, age in zip(made, ages, strict=True)]
    unnamed = _ask(world, "", PROMPT).model_copy(update={"created_at": utc_now() - ages[0]})
    unnamed = unnamed.model_copy(update={"principal": unnamed_caller(unnamed.id)})
    with context.store.write() as conn:
        interactions.insert(conn, [*asked, unnamed])
        feedback.insert(conn, [(context.model, _say(asked[2], NAME, "At counter nineteen."))])
    yield world
    context.store.close()


def test_retention_makes_nobody_younger(aged: World) -> None:
    context = aged.context
    with context.store.read() as conn:
        before = curating.people(conn, context.model, context.pseudonym)
    assert retain(context) == {"interaction": 3}
    with context.store.read() as conn:
        assert curating.people(conn, context.model, context.pseudonym) == before
        assert people.first_seen(conn, "another", context.pseudonym) == {}
    assert before[NAME].first_seen is not None
    assert before[NAME].first_seen < utc_now() - timedelta(days=59)
    # The last request and what was said on it go too: who comes again then is as old as ever.
    with context.store.write() as conn:
        drop_feedback(conn, context.model, utc_now() + timedelta(days=1))
    assert retain(context, now=a_month_later()) == {"interaction": 1}
    with context.store.write() as conn:
        again = _ask(aged, NAME, PROMPT)
        interactions.insert(conn, [again])
        feedback.insert(conn, [(context.model, _say(again, NAME, "At counter twenty."))])
        assert curating.people(conn, context.model, context.pseudonym) == before


def test_what_retention_keeps_of_a_person_names_nobody_and_is_erased(aged: World) -> None:
    context = aged.context
    with context.store.write() as conn:
        drop_feedback(conn, context.model, utc_now() + timedelta(days=1))
    retain(context, now=a_month_later())
    alias = context.pseudonym(NAME)
    with context.store.read() as conn:
        assert people.remembered(conn, alias) == 1
        assert conn.execute(select(func.count()).select_from(first_seen)).scalar_one() == 1  # not of the unnamed one
    assert scan(context, NAME, TEXTS).findings == ()
    assert job.plan(context, NAME).counts["first_seen"] == 1
    outcome = job.erase(context, NAME, by="officer", reason="ticket 12", observer=PrintObserver(quiet=True))
    assert (outcome.state, outcome.counts) == ("settling", {"first_seen": 1})
    assert job.go_on(context, PrintObserver(quiet=True), now=settled(aged)) == 0
    with context.store.read() as conn:
        assert people.remembered(conn, alias) == 0
    again = job.erase(context, NAME, by="officer", reason="ticket 12", observer=PrintObserver(quiet=True))
    assert again.state == "nothing"


def test_a_request_deleted_while_an_erasure_settles_leaves_nothing(aged: World) -> None:
    context = aged.context
    job.erase(context, NAME, by="officer", reason="ticket 12", observer=PrintObserver(quiet=True))
    late = _ask(aged, NAME, PROMPT).model_copy(update={"created_at": utc_now() - timedelta(days=40)})
    with context.store.write() as conn:
        interactions.insert(conn, [late])
    retain(context)
    with context.store.read() as conn:
        assert people.remembered(conn, context.pseudonym(NAME)) == 1
    assert job.go_on(context, PrintObserver(quiet=True), now=settled(aged)) == 0
    with context.store.read() as conn:
        assert people.remembered(conn, context.pseudonym(NAME)) == 0


@pytest.fixture
def tombstoned(tmp_path: Path) -> Iterator[tuple[Context, Path]]:
    """A snapshot of an incident with three paraphrases and of two corrections; in the store there is one of these."""
    context = open_context(world_config(tmp_path / "state", retention={"ttl_days": {"feedback": 30}}))
    world = World(context)
    asked = _ask(world, NAME, PROMPT)
    kept = _say(asked, NAME, "At counter nineteen.")
    rows = [
        SnapshotRow(
            digest=f"{n:064x}", split="train", source="correction", messages=asked.messages, completion=f"answer {n}",
            row_id=row_id,
        )
        for n, row_id in enumerate(["incident:gone", "incident:gone", "incident:gone", kept.id, "gone"])
    ]  # fmt: skip
    record = publish(
        context.state.snapshots, rows, model=context.model, contract_digest="c", base_digest="b", watermark=1,
        reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip
    with context.store.write() as conn:
        interactions.insert(conn, [asked])
        feedback.insert(conn, [(context.model, kept)])
        snapshots.insert(conn, record, {row.row_id: row.split for row in rows})
    yield context, Path(record.path)
    context.store.close()


def test_a_snapshot_whose_lost_rows_are_tombstones_is_not_read_again(tombstoned: tuple[Context, Path]) -> None:
    context, folder = tombstoned
    assert retain(context)["snapshot_rows"] == 4
    made = folder / DERIVED / "looked"  # who looks for rows to erase sweeps this
    made.parent.mkdir()
    made.touch()
    assert retain(context)["snapshot_rows"] == 0
    assert made.is_file()
    # Four rows are erased and two ids lost by now: only the ids tell that a third one is still there.
    assert retain(context, now=a_month_later()) == {"feedback": 1, "snapshot_rows": 1}
    assert remaining_rows(folder) == []


def test_tombstones_nobody_recorded_are_counted_by_the_next_pass(tombstoned: tuple[Context, Path]) -> None:
    """It was killed after the manifest was written."""
    context, folder = tombstoned
    assert erase_rows(folder, {"gone", "incident:gone"}) == 4
    (folder / "rows-left.parquet").touch()
    assert retain(context)["snapshot_rows"] == 4
    assert not (folder / "rows-left.parquet").exists()
    with context.store.read() as conn:
        assert snapshots.get(conn, folder.name) == read_manifest(folder)
    assert retain(context)["snapshot_rows"] == 0
