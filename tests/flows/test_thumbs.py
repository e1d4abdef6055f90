"""Thumbs on their way: read where they have a weight, held against their contract, label rows of the snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.records import (
    AdapterRef,
    Arm,
    Cause,
    FeedbackKind,
    SnapshotRow,
    utc_now,
)
from data_contracts.snapshots import read_rows
from flows.context import Context, open_context
from flows.ledger import Ledger
from flows.observer import PrintObserver
from flows.pipeline import _inputs
from flows.run import Run
from flows.steps.ingest import ingest
from flows.steps.snapshot import snapshot
from flows.steps.train import pin_reference, training_job
from flows.steps.validate import validate_rows
from store import erasure, pointer, quarantine, requests
from tests.flows.flow_samples import add_corrections, add_thumbs, tiny_config

FEW = {"kto": {"weight": 0.2, "min_labels": 3, "min_people": 3}}


def opened(tmp_path: Path, objectives: dict[str, Any]) -> Context:
    return open_context(
        tiny_config(
            tmp_path / "state",
            training={"objectives": objectives},
            replay={"share": 0.0},
            curation={"holdout_share": 0.0, "corroborating_principals": 1, "trust": {"min_account_age_days": 0}},
        )
    )


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    found = opened(tmp_path, FEW)
    add_corrections(found.store, found.model, per_topic=2)
    yield found
    found.store.close()


def up_to_snapshot(context: Context) -> Run:
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    ledger = Ledger.claim(context.store, request.id, 60.0)
    assert ledger is not None
    run = Run(context, ledger, PrintObserver(quiet=True))
    with ledger:
        for name, step in (("ingest", ingest), ("validate", validate_rows), ("snapshot", snapshot)):
            run.outputs[name] = step(run)
    return run


def thumbs_of(run: Run) -> list[SnapshotRow]:
    return [row for row in read_rows(run.snapshot.path) if row.source == "thumb"]


def test_thumbs_come_into_the_snapshot_as_labels(context: Context) -> None:
    ids = add_thumbs(context.store, context.model, [f"lamp-customer-{n}" for n in range(6)])
    bad = add_thumbs(context.store, context.model, ["anonymous"])
    run = up_to_snapshot(context)
    labels = {row.row_id: row.label for row in thumbs_of(run)}
    assert labels == {ident: -1 if n % 3 == 2 else 1 for n, ident in enumerate(ids)}
    assert run.snapshot.counts["train.thumb"] == 6
    assert run.snapshot.reasons["contract.principal_not_anonymous"] == 1
    with context.store.read() as conn:
        assert quarantine.statuses(conn, context.model)[bad[0]] == "held"
    assert run.outputs["validate"]["reasons"] == {"contract.principal_not_anonymous": 1}
    assert "principal_not_anonymous" in (run.work_dir / "contract_report.html").read_text(encoding="utf-8")
    assert _inputs(run, "ingest")["thumbs"]


def test_few_thumbs_wait_without_a_place_in_quarantine(context: Context) -> None:
    ids = add_thumbs(context.store, context.model, ["lamp-customer-0", "lamp-customer-1"])
    run = up_to_snapshot(context)
    assert thumbs_of(run) == []
    assert run.snapshot.reasons["thumb.too_few"] == 2
    with context.store.read() as conn:
        assert not set(ids) & quarantine.statuses(conn, context.model).keys()


def test_without_a_weight_thumbs_are_not_read(tmp_path: Path) -> None:
    context = opened(tmp_path, {})
    add_corrections(context.store, context.model, per_topic=2)
    add_thumbs(context.store, context.model, [f"lamp-customer-{n}" for n in range(6)])
    run = up_to_snapshot(context)
    assert thumbs_of(run) == []
    assert not {"thumbs", "thumbs_path"} & run.outputs["ingest"].keys()
    assert _inputs(run, "ingest") == {"request": run.request_id}
    assert "thumbs" not in _inputs(run, "snapshot")
    context.store.close()


def test_a_preference_comes_into_the_snapshot_with_its_rejected_answer(context: Context) -> None:
    (chosen,) = add_thumbs(
        context.store, context.model, ["lamp-customer-0"],
        kind=FeedbackKind.PREFERENCE, thumb=None, text="Lamp 0 comes on Monday.", rejected="No idea about lamps.",
    )  # fmt: skip
    rows = {row.row_id: row for row in read_rows(up_to_snapshot(context).snapshot.path)}
    assert (rows[chosen].source, rows[chosen].rejected) == ("preference", "No idea about lamps.")


def test_the_reference_is_the_champion_unless_it_was_taught_by_erased_rows(context: Context) -> None:
    run = up_to_snapshot(context)
    assert "reference" not in training_job(run)
    assert pin_reference(run)["adapter"] is None
    base = context.base().digest
    ref = AdapterRef(version=f"{context.model}@v1", digest="d" * 64, path="there", base_digest=base)
    with context.store.write() as conn:
        serving = pointer.get(conn, context.model)
        champion = Arm(version=ref.version, adapter=ref)
        changed = serving.model_copy(update={"champion": champion})
        pointer.compare_and_set(conn, changed, expected_revision=serving.revision, reason="test")
    run.outputs["pin_reference"] = pin_reference(run)
    assert training_job(run)["reference"] == ref.model_dump(mode="json")
    assert _inputs(run, "train")["reference"]["version"] == ref.version
    with context.store.write() as conn:
        job = erasure.create(
            conn,
            pseudonym="p",
            by="test",
            reason="asked",
            deadline=utc_now() + timedelta(days=1),
            upto_seq=1,
            places={},
        )
        erasure.taint(conn, [ref.version], job.id, utc_now() + timedelta(days=1))
    assert pin_reference(run)["adapter"] is None
