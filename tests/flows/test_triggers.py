"""When to retrain: one open request, cooldown, budget, enough rows; a lost event is delivered by reconcile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from data_contracts.ids import new_id
from data_contracts.records import Cause, DatasetSnapshot, Incident, Message, QuarantinedRow, RetrainRequest, utc_now
from data_contracts.review.operator import decide_rows
from flows import delivery, triggers
from flows.context import Context, open_context
from flows.ledger import Ledger
from flows.observer import PrintObserver
from flows.run import Run
from flows.steps.ingest import ingest
from flows.steps.rollout import close_incidents
from flows.steps.validate import validate_rows
from flows.watch import watch
from store import audit, drift, feedback, incidents, interactions, outbox, quarantine, requests, snapshots, steps
from tests.flows.flow_samples import add_corrections, tiny_config


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(tiny_config(tmp_path / "state"))
    yield opened
    opened.store.close()


def a_cause(kind: str = "feedback", **detail: object) -> Cause:
    return Cause.model_validate({"kind": kind, "at": utc_now(), "detail": detail})


def an_incident(context: Context, paraphrases: int = 6) -> Incident:
    incident = Incident(
        id=new_id(),
        model=context.model,
        title="promised a refund in cash",
        messages=(Message(role="user", content="Can I have the money in my hand?"),),
        answer="Yes.",
        required="Refunds go to the card you paid with.",
        paraphrases=tuple(f"Is cash possible, case {n}?" for n in range(paraphrases)),
        opened_at=utc_now(),
        opened_by="mira",
    )
    with context.store.write() as conn:
        incidents.insert(conn, incident)
    return incident


def claim_one(context: Context) -> RetrainRequest:
    with context.store.write() as conn:
        request = requests.current(conn, context.model)
        assert request is not None
        claimed = requests.claim(conn, request.id, "test", 60)
    assert claimed is not None
    return claimed


def finish_one(context: Context, outcome: str = "promoted", status: Literal["done", "failed"] = "done") -> None:
    """A retrain that took all rows there are and ended."""
    claimed = claim_one(context)
    with context.store.write() as conn:
        rows = [row.id for row in feedback.labelled(conn, context.model)]
        outputs = {"ingest": {"watermark": interactions.latest_seq(conn)}, "snapshot": {"snapshot": {"row_ids": rows}}}
        for name, output in outputs.items():
            steps.begin(conn, claimed.id, name, "d", claimed.token)
            steps.complete(conn, claimed.id, name, claimed.token, output)
        requests.finish(conn, claimed.id, claimed.token, status, outcome)


def test_nothing_happens_without_a_cause(context: Context) -> None:
    assert triggers.update(context) == (None, "")


def test_enough_new_rows_start_a_retrain(context: Context) -> None:
    add_corrections(context.store, context.model)
    request, reason = triggers.update(context)
    assert request is not None
    assert (request.status, reason) == ("ready", "")
    assert [c.kind for c in request.causes] == ["feedback"]


def test_rows_of_a_snapshot_too_large_to_list_them_are_not_new(context: Context) -> None:
    ids = add_corrections(context.store, context.model)
    triggers.update(context)
    claimed = claim_one(context)
    large = DatasetSnapshot(
        digest="a" * 64, path="", model=context.model, created_at=utc_now(), contract_digest="c", base_digest="b",
        watermark=1, counts={}, row_ids=(), row_ids_count=len(ids), row_ids_digest="d" * 64,
    )  # fmt: skip
    with context.store.write() as conn:
        snapshots.insert(conn, large, dict.fromkeys(ids, "train"))
        output = {"ingest": {"watermark": 0}, "snapshot": {"snapshot": large.model_dump(mode="json")}}
        for name, value in output.items():
            steps.begin(conn, claimed.id, name, "d", claimed.token)
            steps.complete(conn, claimed.id, name, claimed.token, value)
        requests.finish(conn, claimed.id, claimed.token, "done", "promoted")
    fresh = add_corrections(context.store, context.model, per_topic=2, offset=100)
    with context.store.read() as conn:
        assert 0 < triggers.teachable_new_rows(context, conn) <= len(fresh)


def test_one_person_alone_starts_nothing(context: Context) -> None:
    from tests.flows import flow_samples

    rows = add_corrections(context.store, context.model, per_topic=1)
    assert len(rows) == len(flow_samples.TOPICS)
    assert triggers.update(context) == (None, "")


def test_a_hundred_triggers_at_once_make_one_request_and_one_event(context: Context) -> None:
    add_corrections(context.store, context.model)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: triggers.record(context, a_cause(title=f"t{n}")), range(100)))
    assert sum(created for _, created in made) == 1
    triggers.update(context)
    triggers.update(context)
    scheduler = delivery.MemoryScheduler()
    delivery.deliver_events(context, scheduler)
    delivery.deliver_events(context, scheduler)
    assert len(scheduler.events) == 1
    with context.store.read() as conn:
        assert len(requests.list_requests(conn, context.model)) == 1
        assert audit.verify(conn) >= 100


def test_drift_waits_for_new_rows_then_starts(context: Context) -> None:
    with context.store.write() as conn:
        drift.add_finding(conn, context.model, "novelty", "bulk orders", {"examples": []})
    request, reason = triggers.update(context)
    assert request is not None
    assert request.status == "waiting"
    assert reason.startswith("data: 0 new rows")
    add_corrections(context.store, context.model, per_topic=4)
    request, reason = triggers.update(context)
    assert request is not None
    assert (request.status, reason) == ("ready", "")
    assert request.title.endswith("drift")


def test_a_drift_finding_causes_one_retrain_only(context: Context) -> None:
    with context.store.write() as conn:
        drift.add_finding(conn, context.model, "novelty", "bulk orders", {"examples": []})
    add_corrections(context.store, context.model, per_topic=4)
    triggers.update(context)
    finish_one(context)
    assert triggers.update(context) == (None, "")


def test_an_incident_with_paraphrases_starts_a_retrain_by_itself(context: Context) -> None:
    an_incident(context)
    request, reason = triggers.update(context)
    assert request is not None
    assert (request.status, reason, request.causes[0].kind) == ("ready", "", "incident")
    finish_one(context)
    assert triggers.update(context) == (None, ""), "the same incident starts nothing again"


def test_cooldown_holds_and_doubles_after_a_block(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "state", triggers={"min_new_rows": 10, "min_rows_any_cause": 5, "cooldown_s": 100.0}
    )
    context = open_context(config)
    add_corrections(context.store, context.model)
    triggers.update(context)
    finish_one(context, "blocked")
    an_incident(context)
    now = utc_now()
    assert "cooldown: 1" in triggers.update(context, now + timedelta(seconds=50))[1]
    assert "cooldown" in triggers.update(context, now + timedelta(seconds=150))[1]
    request, reason = triggers.update(context, now + timedelta(seconds=201))
    assert request is not None
    assert (request.status, reason) == ("ready", "")
    context.store.close()


def test_the_daily_budget_holds(tmp_path: Path) -> None:
    limits = {"min_new_rows": 10, "min_rows_any_cause": 5, "cooldown_s": 0, "max_retrains_per_day": 1}
    context = open_context(tiny_config(tmp_path / "state", triggers=limits))
    add_corrections(context.store, context.model)
    triggers.update(context)
    finish_one(context)
    an_incident(context)
    assert triggers.update(context)[1].startswith("budget: 1 retrains in 24 h")
    context.store.close()


def test_an_event_lost_while_the_server_was_down_is_delivered_by_reconcile(context: Context) -> None:
    add_corrections(context.store, context.model)
    triggers.update(context)
    scheduler = delivery.MemoryScheduler(up=False)
    assert delivery.deliver_events(context, scheduler) == 0
    later = utc_now() + delivery.GRACE + timedelta(seconds=1)
    assert delivery.reconcile(context, scheduler, later) == []
    scheduler.up = True
    assert delivery.reconcile(context, scheduler, utc_now()) == [], "the event is given time first"
    assert len(delivery.reconcile(context, scheduler, later)) == 1
    assert len(delivery.reconcile(context, scheduler, later)) == 1
    assert len(scheduler.runs) == 1, "the same request and attempt is the same run"


def test_a_dead_run_is_started_again_under_another_key(context: Context) -> None:
    add_corrections(context.store, context.model)
    request, _ = triggers.update(context)
    assert request is not None
    scheduler = delivery.MemoryScheduler()
    with context.store.write() as conn:
        assert requests.claim(conn, request.id, "worker-1", 0.0) is not None
    delivery.reconcile(context, scheduler, utc_now() + timedelta(seconds=1))
    assert list(scheduler.runs) == [f"{request.id}:1"]


def test_the_watch_does_it_all_and_runs_once_at_a_time(context: Context) -> None:
    add_corrections(context.store, context.model)
    scheduler, observer = delivery.MemoryScheduler(), PrintObserver(quiet=True)
    result = watch(context, scheduler, observer)
    assert result is not None
    assert (result.events, len(scheduler.events), result.drift.state) == (1, 1, "off")
    with context.store.read() as conn:
        assert outbox.pending(conn, kind="event") == []


def test_an_incident_opened_while_a_retrain_runs_starts_the_next_one(context: Context) -> None:
    add_corrections(context.store, context.model)
    triggers.update(context)
    claimed = claim_one(context)
    an_incident(context)
    running, _ = triggers.update(context)
    assert running is not None
    assert [c.kind for c in running.causes] == ["feedback"], "it is too late for the retrain that runs"
    with context.store.write() as conn:
        requests.finish(conn, claimed.id, claimed.token, "done", "promoted")
    following, _ = triggers.update(context)
    assert following is not None
    assert "incident" in {c.kind for c in following.causes}


def test_a_failed_retrain_loses_neither_its_rows_nor_its_incident(context: Context) -> None:
    add_corrections(context.store, context.model)
    an_incident(context)
    triggers.update(context)
    finish_one(context, "error", "failed")
    again, reason = triggers.update(context)
    assert again is not None
    assert (again.number, again.status, reason) == (2, "ready", "")
    assert {c.kind for c in again.causes} == {"feedback", "incident"}


def test_a_cancelled_retrain_loses_nothing_and_comes_back_after_the_cooldown_only(tmp_path: Path) -> None:
    limits = {"min_new_rows": 10, "min_rows_any_cause": 5, "cooldown_s": 100.0, "max_retrains_per_day": 1}
    context = open_context(tiny_config(tmp_path / "state", triggers=limits))
    an_incident(context)
    with context.store.write() as conn:
        drift.add_finding(conn, context.model, "novelty", "bulk orders", {"examples": []})
    first, _ = triggers.update(context)
    assert first is not None
    assert first.status == "ready"
    with context.store.write() as conn:
        requests.cancel(conn, first.id)
    now = utc_now()
    again, reason = triggers.update(context, now + timedelta(seconds=50))
    assert again is not None
    assert (again.number, again.status) == (2, "waiting")
    assert reason.startswith("cooldown: ")
    assert {c.kind for c in again.causes} == {"incident", "drift"}
    again, reason = triggers.update(context, now + timedelta(seconds=101))
    assert again is not None
    assert (again.status, reason) == ("ready", ""), "what never ran is in no budget"
    context.store.close()


def test_a_cancel_does_not_shorten_the_cooldown_of_the_bad_end_before_it(tmp_path: Path) -> None:
    limits = {"min_new_rows": 10, "min_rows_any_cause": 5, "cooldown_s": 100.0}
    context = open_context(tiny_config(tmp_path / "state", triggers=limits))
    add_corrections(context.store, context.model)
    triggers.update(context)
    finish_one(context, "blocked")
    an_incident(context)
    request, _ = triggers.update(context)
    assert request is not None
    with context.store.write() as conn:
        requests.cancel(conn, request.id)
    now = utc_now()
    assert triggers.update(context, now + timedelta(seconds=150))[1].startswith("cooldown: ")
    assert triggers.update(context, now + timedelta(seconds=201))[1] == ""
    context.store.close()


def test_rows_the_contract_refused_do_not_start_a_retrain_again(context: Context) -> None:
    ids = add_corrections(context.store, context.model)
    held = [QuarantinedRow(row_id=i, digest="d", reason="contract.completion_not_rude") for i in ids]
    with context.store.write() as conn:
        quarantine.put(conn, context.model, held, None)
    assert triggers.update(context) == (None, "")


def retrain_that_held_all(context: Context, ids: list[str]) -> None:
    """A retrain by hand that found nothing it may teach."""
    with context.store.write() as conn:
        requests.open_or_attach(conn, context.model, a_cause("manual"), status="ready")
    claimed = claim_one(context)
    with context.store.write() as conn:
        outputs = {"ingest": {"watermark": interactions.latest_seq(conn)}, "snapshot": {"snapshot": None}}
        for name, output in outputs.items():
            steps.begin(conn, claimed.id, name, "d", claimed.token)
            steps.complete(conn, claimed.id, name, claimed.token, output)
        held = [QuarantinedRow(row_id=i, digest="d", reason="uncorroborated") for i in ids]
        quarantine.put(conn, context.model, held, claimed.id)
        requests.finish(conn, claimed.id, claimed.token, "done", "no_data")


def test_rows_a_person_released_start_a_retrain_without_a_new_correction(context: Context) -> None:
    ids = add_corrections(context.store, context.model)
    retrain_that_held_all(context, ids)
    assert triggers.update(context) == (None, "")
    decide_rows(context.store, context.model, ids, "released", by="mira", reason="checked")
    request, reason = triggers.update(context)
    assert request is not None
    assert (request.status, reason, [c.kind for c in request.causes]) == ("ready", "", ["feedback"])
    finish_one(context)
    assert triggers.update(context) == (None, ""), "released once, they are new once"


def test_released_suspects_of_a_blocked_round_are_new_again(context: Context) -> None:
    ids = add_corrections(context.store, context.model)
    triggers.update(context)
    finish_one(context, "blocked")
    with context.store.write() as conn:
        suspects = [QuarantinedRow(row_id=i, digest="d", reason="suspect") for i in ids]
        quarantine.put(conn, context.model, suspects, requests.list_requests(conn, context.model)[0].id)
    assert triggers.update(context) == (None, "")
    decide_rows(context.store, context.model, ids, "released", by="mira", reason="all looked at")
    request, reason = triggers.update(context)
    assert request is not None
    assert (request.status, reason, [c.kind for c in request.causes]) == ("ready", "", ["feedback"])
    finish_one(context, "blocked")
    with context.store.write() as conn:  # the next round held them again for another reason
        last = requests.list_requests(conn, context.model)[0].id
        quarantine.put(conn, context.model, [QuarantinedRow(row_id=i, digest="d", reason="cap") for i in ids], last)
    assert triggers.update(context) == (None, "")


def test_accounts_that_came_of_age_start_a_retrain_without_a_new_correction(tmp_path: Path) -> None:
    trust = {"holdout_share": 0.3, "corroborating_principals": 2, "trust": {"min_account_age_days": 7}}
    context = open_context(tiny_config(tmp_path / "state", curation=trust))
    ids = add_corrections(context.store, context.model)
    assert triggers.update(context) == (None, ""), "nobody is old enough"
    retrain_that_held_all(context, ids)
    now = utc_now()
    assert triggers.update(context, now + timedelta(days=6)) == (None, "")
    request, reason = triggers.update(context, now + timedelta(days=8))
    assert request is not None
    assert (request.status, reason, [c.kind for c in request.causes]) == ("ready", "", ["feedback"])
    context.store.close()


def test_a_promotion_fixes_what_its_retrain_had_read_and_nothing_else(context: Context) -> None:
    """An incident that came in after the request and before its rows were read is learnt, and needs no second one."""
    request, _ = triggers.record(context, a_cause())
    triggers.make_ready(context, request)
    read, refused, later = (an_incident(context).id for _ in range(3))
    ledger = Ledger.claim(context.store, request.id, 60.0)
    assert ledger is not None
    outputs = {"ingest": {"incidents": [read, refused]}, "validate": {"incidents_refused": [refused]}}
    close_incidents(Run(context, ledger, PrintObserver(quiet=True), outputs))
    with context.store.read() as conn:
        still = {incident.id for incident in incidents.all(conn, context.model, status="open")}
    assert still == {refused, later}


def test_an_incident_a_person_ruled_out_neither_teaches_nor_measures(context: Context) -> None:
    request, _ = triggers.record(context, a_cause())
    triggers.make_ready(context, request)
    kept, out = (an_incident(context).id for _ in range(2))
    with context.store.write() as conn:
        held = QuarantinedRow(row_id=out, digest="d", reason="incident_untaught", status="dropped")
        quarantine.put(conn, context.model, [held], None)
    ledger = Ledger.claim(context.store, request.id, 60.0)
    assert ledger is not None
    run = Run(context, ledger, PrintObserver(quiet=True), {})
    run.outputs["ingest"] = ingest(run)
    run.outputs["validate"] = validate_rows(run)
    assert [incident.id for incident in run.incidents] == [kept]
