"""Promise 9: a person's rows leave every place, what they taught leaves service, and nothing comes back."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from configs.errors import AdapterRejectedError, InputError, NotFoundError, SnapshotError, StaleTokenError
from data_contracts.records import Arm, Message, QuarantinedRow, utc_now
from data_contracts.redaction import RedactionPolicy, Redactor
from data_contracts.review.operator import decide_rows
from data_contracts.snapshots import read_rows, remaining_rows, verify
from flows import erasure as job
from flows.context import open_context
from flows.erasure_rows import TAINT_TAG
from flows.erasure_scan import Needles, scan
from flows.observer import PrintObserver
from monitoring.erasure_deadline import retire_overdue
from monitoring.rollout_actions import rollback, start_rollout
from registry_hooks.memory import MemoryRegistry
from store import (
    audit,
    drift,
    erasure,
    feedback,
    incidents,
    interactions,
    outbox,
    pointer,
    quarantine,
    requests,
    rollouts,
    snapshots,
    steps,
    versions,
)
from tests.flows.erasure_world import NAME, PROMPT, TEXTS, World, build, settled, world_config

QUIET = PrintObserver(quiet=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = build(tmp_path / "state")
    yield built
    built.context.store.close()


def erase(world: World) -> job.Outcome:
    return job.erase(world.context, NAME, by="officer", reason="ticket 12", observer=QUIET)


def finish(world: World) -> None:
    assert job.go_on(world.context, QUIET, now=settled(world)) == 0


def raw_hits(root: Path) -> list[str]:
    needles = Needles(NAME, TEXTS)
    return [str(p) for p in sorted(root.rglob("*")) if p.is_file() and needles.in_bytes(p.read_bytes())]


def test_the_world_is_full_of_them(world: World) -> None:
    found = scan(world.context, NAME, TEXTS)
    places = {finding.place.split()[0] + " " + finding.place.split()[1].split("/")[0] for finding in found.findings}
    assert places >= {
        "store interactions", "store feedback", "store incidents", "store quarantine", "store review_items",
        "store rollout_evidence", "store drift_states", "store drift_findings", "store retrain_requests",
        "file snapshots", "file runs", "file reports", "file cache", "file drift", "mlflow run",
    }  # fmt: skip
    assert [f for f in found.findings if f.needle == "name"]


def test_a_dry_run_counts_and_changes_nothing(world: World, tmp_path: Path) -> None:
    before = scan(world.context, NAME, TEXTS).findings
    outcome = job.plan(world.context, NAME)
    assert outcome.state == "planned"
    assert outcome.versions == (world.version,)
    assert outcome.counts["interactions"] == 2
    assert outcome.counts["feedback"] == 4
    assert outcome.counts["incidents"] == 2
    assert outcome.counts["snapshot_rows"] == 3
    assert {"runs": 1, "reports": 1, "drift_references": 1, "tracking_runs": 1}.items() <= outcome.counts.items()
    assert outcome.counts["export_lines"] == 3  # one is of another's request, with their words on it
    assert outcome.exports == (str(tmp_path / "moved.parquet"),)  # the other one is rewritten
    assert scan(world.context, NAME, TEXTS).findings == before
    with world.context.store.read() as conn:
        assert erasure.open_jobs(conn) == []


def test_nothing_is_left_anywhere(world: World, tmp_path: Path) -> None:
    outcome = erase(world)
    assert outcome.state == "settling"
    assert outcome.versions == (world.version,)
    assert outcome.exports == (str(tmp_path / "moved.parquet"),)
    finish(world)
    found = scan(world.context, NAME, TEXTS)
    assert found.findings == ()
    assert found.rows > 30
    assert found.files > 15
    adapters = {path.name for path in world.context.state.adapters.iterdir()}
    assert not adapters & {"9" * 64, "8" * 64}, "a blocked candidate, and a soup their rows are in"
    # The export beside the state directory too, and raw bytes of every page and log of the database.
    assert raw_hits(tmp_path) == []
    world.context.store.close()
    gc.collect()
    assert raw_hits(tmp_path) == []


def test_other_peoples_rows_stay(world: World) -> None:
    erase(world)
    finish(world)
    with world.context.store.read() as conn:
        assert all(feedback.get(conn, ident) is not None for ident in world.others)
        assert interactions.count(conn, world.context.model) == 6
        assert len(feedback.labelled(conn, world.context.model)) == 6
        assert quarantine.list_rows(conn, world.context.model) == []
        assert [f.detail["examples"] for f in drift.findings(conn, world.context.model)] == [["which way to counter 3"]]
        assert [f.name for f in drift.findings(conn, world.context.model)] == ["new topic: counter"]
        assert "an anchor's answer" in next((world.context.state.cache / "evaluation").glob("*.jsonl")).read_text()
    exported = world.context.state.root.parent / "exported.jsonl"
    # Five of six: the line with the person's comment went whole.
    assert len(exported.read_text().splitlines()) == 5
    assert list(world.context.state.runs.glob("*/keep.json"))


def test_the_snapshot_verifies_and_trains_no_more(world: World) -> None:
    folder = world.context.state.snapshots / world.snapshot
    erase(world)
    assert verify(folder).digest == world.snapshot
    assert len(remaining_rows(folder)) == 5
    with pytest.raises(SnapshotError, match="erased"):
        read_rows(folder)
    assert len(read_rows(world.context.state.snapshots / world.clean_snapshot)) == 5


def test_the_drift_reference_in_use_is_rebuilt_under_another_digest(world: World) -> None:
    with world.context.store.read() as conn:
        before = drift.references(conn)[world.context.model]
    erase(world)
    with world.context.store.read() as conn:
        watermark, after, state = drift.state(conn, world.context.model) or (0, "", {})
    assert after != before
    assert (watermark, state["monitor"], state["champion"]) == (1, None, world.version)
    assert {p.stem for p in world.context.state.drift.iterdir()} == {after}


def test_every_step_is_in_the_chain_by_pseudonym_only(world: World) -> None:
    erase(world)
    finish(world)
    alias = job.pseudonym(world.context, NAME)
    with world.context.store.read() as conn:
        audit.verify(conn)
        said = [e for e in audit.entries(conn, 200) if e.action.startswith("erasure.")]
    actions = [e.action.removeprefix("erasure.") for e in reversed(said)]
    expected = ["begun", "drift", "files", "reports", "snapshots", "exports", "scrub", "retrain", "settle", "done"]
    assert actions == expected
    assert {e.detail["person"] for e in said} == {alias}
    assert (said[-1].actor, said[-1].detail["reason"]) == ("officer", "ticket 12")


def test_a_second_erasure_finds_nothing(world: World) -> None:
    first = erase(world)
    again = erase(world)
    assert first.erasure is not None
    assert again.erasure is not None
    assert again.erasure.id == first.erasure.id
    finish(world)
    last = erase(world)
    assert last.state == "nothing"
    with world.context.store.read() as conn:
        assert len(erasure.of_person(conn, job.pseudonym(world.context, NAME))) == 1


def test_what_they_taught_is_tainted_and_told_to_the_registry(world: World) -> None:
    erase(world)
    finish(world)
    with world.context.store.read() as conn:
        assert erasure.tainted_among(conn, [world.version, world.clean_version]) == {world.version}
        assert outbox.pending(conn, kind="tag") == []
    tags = {v.name: v.tags.get(TAINT_TAG, "") for v in world.registry.versions(world.context.model)}
    assert tags[world.version].startswith("erasure ")
    assert tags[world.clean_version] == ""
    registry = world.registry
    assert isinstance(registry, MemoryRegistry)
    report = registry.runs[world.run_id].files[f"{world.retrain}.html"].decode()
    assert "taken out of this report by an erasure" in report
    assert "all suites passed" in report


def test_a_registry_that_is_down_is_told_later(tmp_path: Path) -> None:
    from configs.errors import RegistryError

    class Away(MemoryRegistry):
        down = False

        def tag_version(self, model: str, number: int, key: str, value: str) -> None:
            if self.down:
                raise RegistryError("the registry does not answer")
            super().tag_version(model, number, key, value)

    registry = Away()
    world = build(tmp_path / "state", registry)
    registry.down = True
    erase(world)
    assert job.go_on(world.context, QUIET, now=settled(world)) == 1
    registry.down = False
    finish(world)
    assert TAINT_TAG in registry.versions(world.context.model)[0].tags
    world.context.store.close()


def test_a_tainted_version_serves_until_its_deadline_and_no_longer(world: World) -> None:
    erase(world)
    store, model = world.context.store, world.context.model
    with store.write() as conn:
        assert retire_overdue(conn, model, utc_now() + timedelta(days=29), actor="controller") is None
        assert pointer.get(conn, model).champion.version == world.version
        assert retire_overdue(conn, model, utc_now() + timedelta(days=31), actor="controller") == world.version
        assert pointer.get(conn, model).champion.version == world.clean_version
        assert retire_overdue(conn, model, utc_now() + timedelta(days=31), actor="controller") is None
        assert audit.entries(conn, 1)[0].action == "erasure.version_retired"


def test_with_no_untainted_version_the_base_serves(world: World) -> None:
    erase(world)
    store, model = world.context.store, world.context.model
    with store.write() as conn:
        erasure.taint(conn, [world.clean_version], "another", utc_now())
        retire_overdue(conn, model, utc_now() + timedelta(days=31), actor="controller")
        assert pointer.get(conn, model).champion == Arm()


def test_a_tainted_version_is_no_rollback_target(world: World) -> None:
    with world.context.store.write() as conn:
        erasure.taint(conn, [world.clean_version], "another", utc_now() + timedelta(days=9))
    rollback(world.context.store, world.context.model, "ops", "bad after all")
    with world.context.store.read() as conn:
        assert pointer.get(conn, world.context.model).champion == Arm()


def test_a_tainted_version_is_never_rolled_out(world: World) -> None:
    with world.context.store.read() as conn:
        tainted = pointer.get(conn, world.context.model).champion
    erase(world)
    with pytest.raises(AdapterRejectedError, match="erased"):
        start_rollout(world.context.store, world.context.model, tainted, cause="again")


def test_an_open_canary_of_what_they_taught_is_aborted(world: World) -> None:
    with world.context.store.read() as conn:
        tainted = pointer.get(conn, world.context.model).champion
    opened = start_rollout(world.context.store, world.context.model, tainted, cause="again")
    erase(world)
    with world.context.store.read() as conn:
        closed = rollouts.get(conn, opened.id)
    assert closed is not None
    assert closed.state == "aborted"


def test_a_retrain_without_them_is_ready_past_any_cooldown(world: World) -> None:
    erase(world)
    with world.context.store.read() as conn:
        request = requests.current(conn, world.context.model)
        waiting = outbox.pending(conn, kind="event")
    assert request is not None
    assert request.status == "ready"
    assert [c.kind for c in request.causes] == ["drift", "erasure"]
    assert [row.payload["request_id"] for row in waiting] == [request.id]


def test_a_running_retrain_that_read_their_rows_starts_again(world: World) -> None:
    """It is caught in the middle of a step: its output is refused, and the next claim begins with `ingest`."""
    store, model = world.context.store, world.context.model
    with store.write() as conn:
        request = requests.current(conn, model)
        assert request is not None
        requests.set_ready(conn, request.id)
        claimed = requests.claim(conn, request.id, "worker", 600.0)
        assert claimed is not None
        steps.begin(conn, request.id, "ingest", "i", claimed.token)
        watermark = interactions.latest_seq(conn)
        steps.complete(conn, request.id, "ingest", claimed.token, {"watermark": watermark, "incidents": []})
        steps.begin(conn, request.id, "snapshot", "i", claimed.token)
    work = world.context.run_dir(request.id)
    (work / "rows.jsonl").write_text(f'{{"id": "{world.theirs["taught"]}", "completion": "{PROMPT}"}}\n')
    erase(world)
    with pytest.raises(StaleTokenError), store.write() as conn:
        steps.complete(conn, request.id, "snapshot", claimed.token, {})
    with pytest.raises(StaleTokenError), store.write() as conn:
        requests.renew(conn, request.id, claimed.token, 600.0)
    with store.read() as conn:
        again = requests.get(conn, request.id)
        assert steps.list_steps(conn, request.id) == []
    assert again is not None
    assert (again.status, again.token) == ("ready", claimed.token + 1)
    assert not (work / "rows.jsonl").exists()


def test_a_worker_slower_than_the_erasure_leaves_nothing(world: World) -> None:
    """Its snapshot is refused by the table; files it writes after the first pass go when the erasure settles."""
    store, context = world.context.store, world.context
    with store.read() as conn:
        held = snapshots.get(conn, world.snapshot)
    assert held is not None
    erase(world)
    late = context.state.runs / "late-worker"
    late.mkdir()
    (late / "rows.jsonl").write_text(f'{{"id": "{world.theirs["taught"]}", "completion": "{PROMPT}"}}\n')
    with pytest.raises(SnapshotError, match="erased"), store.write() as conn:
        snapshots.insert(conn, held.model_copy(update={"digest": "e" * 64}), {world.theirs["taught"]: "train"})
    finish(world)
    assert scan(context, NAME, TEXTS).findings == ()


def test_a_version_recorded_after_the_erasure_is_tainted_at_once(world: World) -> None:
    erase(world)
    with world.context.store.write() as conn:
        made = versions.get(conn, world.version)
        assert made is not None
        slow = made.model_copy(update={"number": 3, "adapter_digest": "5" * 64})
        versions.insert(conn, slow, adapter_path="/nowhere", request_id=None, approved_by="gate")
        assert erasure.taint_of(conn, slow.name) is not None


def test_rows_on_their_way_are_taken_and_later_ones_are_a_new_start(world: World) -> None:
    from data_contracts.ids import new_request_id
    from tests.flows.erasure_world import _ask, _say

    under_way = _ask(world, NAME, PROMPT)
    said_before = _say(under_way, "customer-1", "late words of another")
    erase(world)
    afterwards = _ask(world, NAME, "a new question altogether")
    with world.context.store.write() as conn:
        interactions.insert(conn, [under_way, afterwards])
        feedback.insert(conn, [(world.context.model, said_before)])
    finish(world)
    with world.context.store.read() as conn:
        assert interactions.get(conn, under_way.id) is None
        assert feedback.get(conn, said_before.id) is None
        assert interactions.get(conn, afterwards.id) is not None
    assert new_request_id(world.context.state.key, world.context.model) > afterwards.id


def test_nothing_comes_back_under_an_erased_id(world: World) -> None:
    from tests.flows.erasure_world import _say

    store, model = world.context.store, world.context.model
    with store.read() as conn:
        old = interactions.get(conn, world.theirs["request"])
        said = feedback.get(conn, world.theirs["taught"])
        incident = incidents.get(conn, world.theirs["incident"])
    assert old is not None
    assert said is not None
    assert incident is not None
    erase(world)
    with store.write() as conn:
        interactions.insert(conn, [old])
        assert feedback.insert(conn, [(model, said), (model, _say(old, "customer-1", "late feedback"))]) == 0
        incidents.insert(conn, incident)
    with store.read() as conn:
        assert interactions.get(conn, old.id) is None
        assert incidents.all(conn, model) == []


@pytest.mark.parametrize("name", ["", "  ", "anonymous"])
def test_nobodys_name_is_refused(world: World, name: str) -> None:
    with pytest.raises(InputError, match="nobody"):
        job.erase(world.context, name, by="officer", reason="ticket", observer=QUIET)


@pytest.mark.parametrize(("by", "reason"), [("officer", f"{NAME.upper()} asked"), (NAME, "ticket")])
def test_the_name_does_not_get_into_the_audit_log(world: World, by: str, reason: str) -> None:
    with pytest.raises(InputError, match="may not hold the name"):
        job.erase(world.context, NAME, by=by, reason=reason, observer=QUIET)
    with world.context.store.read() as conn:
        assert interactions.get(conn, world.theirs["request"]) is not None


def test_rows_of_incidents_can_be_traced_and_confirm_no_guess(world: World) -> None:
    from types import SimpleNamespace

    from data_contracts.curation import incident_rows
    from flows.run import Run
    from flows.steps.snapshot import _traceable

    run = Run(world.context, SimpleNamespace(request=SimpleNamespace(id="r1")), QUIET)  # type: ignore[arg-type]
    with world.context.store.read() as conn:
        pinned = incidents.all(conn, world.context.model)
    plain = incident_rows(pinned, [], world.context.config.curation)
    rows = _traceable(run, pinned, plain)
    assert {row.row_id for row in rows} <= {f"incident:{i.id}" for i in pinned}
    assert len({row.digest for row in rows}) == len(rows) == len(plain) > 1
    assert {row.digest for row in rows}.isdisjoint(row.digest for row in plain)
    assert _traceable(run, pinned, plain) == rows
    with world.context.store.write() as conn:
        erasure.forget_salts(conn, [row.row_id for row in rows])
    assert {row.digest for row in _traceable(run, pinned, plain)}.isdisjoint(row.digest for row in rows)
    with pytest.raises(SnapshotError, match="no incident"):
        _traceable(run, pinned[:0], plain)
    # Two incidents say the same, and the policy keeps the first one from teaching: the row is the second one's.
    dropped = pinned[0].model_copy(
        update={"id": "0", "messages": (Message(role="user", content="I call from 10.1.2.3, what now?"),)}
    )
    drops = Redactor(policy=RedactionPolicy({"IP": "drop_row"}))
    found = incident_rows([dropped, pinned[0]], [], world.context.config.curation, drops)
    traced = _traceable(run, [dropped, pinned[0]], found)
    assert traced
    assert {row.row_id for row in traced} == {f"incident:{pinned[0].id}"}


@pytest.mark.postgres
def test_on_postgresql_nothing_is_left_in_the_tables(tmp_path: Path, postgres_url: str) -> None:
    world = build(tmp_path / "state", store={"url": postgres_url})
    outcome = erase(world)
    assert outcome.versions == (world.version,)
    finish(world)
    assert scan(world.context, NAME, TEXTS).findings == ()
    with world.context.store.read() as conn:
        audit.verify(conn)
    world.context.store.close()


@pytest.mark.stack
def test_on_a_real_mlflow_nothing_is_left_in_runs_and_files(tmp_path: Path, mlflow_server: str) -> None:
    from registry_hooks.mlflow_registry import MlflowRegistry

    registry = MlflowRegistry(mlflow_server, experiment="erasure")
    world = build(tmp_path / "state", registry, model={"name": "erased-bot"})
    before = [f.place for f in scan(world.context, NAME, TEXTS).findings if f.place.startswith("mlflow")]
    assert before == [f"mlflow run {world.run_id} {world.retrain}.html"]
    erase(world)
    finish(world)
    assert scan(world.context, NAME, TEXTS).findings == ()
    tags = {v.name: v.tags.get(TAINT_TAG, "") for v in registry.versions("erased-bot")}
    assert tags[world.version].startswith("erasure ")
    assert tags[world.clean_version] == ""
    world.context.store.close()


def test_an_export_that_cannot_be_rewritten_is_named_and_stops_nothing(world: World, tmp_path: Path) -> None:
    exported = tmp_path / "exported.jsonl"
    blocked = tmp_path / ".exported.jsonl.erasing"
    blocked.mkdir()  # where the new file would be written
    outcome = erase(world)
    assert set(outcome.exports) == {str(exported), str(tmp_path / "moved.parquet")}
    assert [f.place for f in scan(world.context, NAME, TEXTS).findings if f.needle == "name"] == [f"export {exported}"]
    blocked.rmdir()
    finish(world)
    assert raw_hits(tmp_path) == []


def test_an_export_under_way_is_cleaned_as_the_erasure_settles(world: World, tmp_path: Path) -> None:
    late = tmp_path / "late.jsonl"
    with world.context.store.write() as conn:
        erasure.record_export(conn, world.context.model, str(late), 0)
    written = (tmp_path / "exported.jsonl").read_bytes()  # what it read before the erasure
    assert str(late) in erase(world).exports
    late.write_bytes(written)
    assert scan(world.context, NAME, TEXTS).findings
    finish(world)
    assert late.read_bytes()
    assert raw_hits(tmp_path) == []
    assert scan(world.context, NAME, TEXTS).findings == ()


def test_an_export_elsewhere_is_said_to_be_not_looked_at(world: World) -> None:
    with world.context.store.write() as conn:
        erasure.record_export(conn, world.context.model, "s3://bucket/rows.jsonl", 1)
    assert "export s3://bucket/rows.jsonl: not a local file" in scan(world.context, NAME, TEXTS).skipped


def test_a_dry_run_names_the_exports_nobody_could_reach(world: World, tmp_path: Path) -> None:
    ours = tmp_path / "exported.jsonl"
    others, empty, chat = tmp_path / "others.jsonl", tmp_path / "empty.jsonl", tmp_path / "chat.jsonl"
    kept = [line for line in ours.read_text().splitlines() if world.others[5] in line]
    others.write_text("\n".join(kept) + "\n")
    empty.write_text("")
    chat.write_text('{"messages": []}\n')
    with world.context.store.write() as conn:
        for path in (others, empty, chat):
            erasure.record_export(conn, world.context.model, str(path), 1)
    planned = job.plan(world.context, NAME)
    assert len(kept) == 1
    assert set(planned.exports) == {str(tmp_path / "moved.parquet"), str(chat)}
    assert set(erase(world).exports) == set(planned.exports)
    assert job.plan(world.context, "nobody-at-all").counts["export_lines"] == 0


def test_servers_that_were_never_up_are_said_in_one_sentence_each(tmp_path: Path) -> None:
    where = "http://127.0.0.1:9"
    context = open_context(world_config(tmp_path / "state", registry={"uri": where}))
    left = "runs, parameters, tags, artifacts and model versions"
    flows = "flow runs, task runs, logs and artifacts"
    first, second = scan(context, NAME, TEXTS, prefect_url=where).skipped
    assert first == f"mlflow: MLflow does not answer at {where}, so none of its {left} were searched"
    assert second == f"prefect: Prefect does not answer at {where}, so none of its {flows} were searched"
    unknown = scan(context, NAME, TEXTS).skipped[1]
    assert unknown.startswith("prefect: no API URL is known (")
    assert unknown.endswith(f"so its {flows} were not searched")
    context.store.close()


def test_a_failing_erasure_stays_open_and_says_the_type_only(world: World) -> None:
    with world.context.store.write() as conn:
        ident = erasure.create(
            conn, pseudonym="p", by="officer", reason="t", deadline=utc_now(), upto_seq=0, places={}
        ).id  # it has no places: its steps fail
    observer = PrintObserver(quiet=True)
    assert job.go_on(world.context, observer) == 1
    assert observer.lines[-1] == f"Erasure {ident} failed (KeyError); it stays open and is tried again."


def test_a_contract_report_in_html_goes_though_its_ids_are_not_quoted(world: World) -> None:
    folder = world.context.state.runs / "someone-elses-retrain"
    folder.mkdir()
    page = folder / "contract_report.html"
    page.write_text(f"<td>{world.theirs['held']}</td><td>{PROMPT}</td>", encoding="utf-8")
    erase(world)
    assert not page.exists()


def test_an_incident_of_theirs_leaves_the_quarantine_and_cannot_be_released(world: World) -> None:
    ident, model, store = world.theirs["opened"], world.context.model, world.context.store
    with store.write() as conn:
        quarantine.put(conn, model, [QuarantinedRow(row_id=ident, digest="d", reason="r", detail=PROMPT)], None)
    assert job.plan(world.context, NAME).counts["quarantine"] == 2
    assert erase(world).counts["quarantine"] == 2
    with store.read() as conn:
        assert quarantine.statuses(conn, model) == {}
    with pytest.raises(NotFoundError):
        decide_rows(store, model, [ident], "released", by="ops", reason="fine")
