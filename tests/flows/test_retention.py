"""Retention: what is older than its time goes; snapshots behind a version in service keep their rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from configs.errors import ConfigError
from data_contracts.records import QuarantinedRow, utc_now
from data_contracts.snapshots import read_rows, remaining_rows
from flows.context import open_context
from flows.erasure_scan import scan
from flows.observer import PrintObserver
from flows.retention import cutoffs, retain
from flows.watch import _retain
from monitoring.erasure_deadline import retire_overdue
from store import audit, erasure, interactions, quarantine
from store.retention import drop_feedback
from tests.flows.erasure_world import NAME, TEXTS, World, build, world_config

ALL = {"interaction": 30, "feedback": 30, "quarantine": 30, "report": 30, "run": 30}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = build(tmp_path / "state", retention={"ttl_days": ALL})
    yield built
    built.context.store.close()


def later(days: float) -> object:
    return utc_now() + timedelta(days=days)


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
    assert (counts["feedback"], counts["interaction"]) == (10, 8)
    with world.context.store.read() as conn:
        entry = audit.entries(conn, 1)[0]
        audit.verify(conn)
    assert (entry.action, entry.detail["feedback"]) == ("retention.deleted", 10)
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
    from store import requests

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


def test_a_file_retention_cannot_reach_does_not_stop_the_watch(world: World, tmp_path: Path) -> None:
    reports = world.context.state.reports
    reports.rename(tmp_path / "reports")
    reports.mkdir()
    (reports / "loop").symlink_to(reports / "loop")  # to look at it is an OSError
    observer = PrintObserver(quiet=True)
    assert _retain(world.context, observer) == {}
    assert observer.lines == ["Retention waits: OSError"]
