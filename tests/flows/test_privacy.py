"""A private retrain is paid for once, before it begins, or not begun."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.privacy import ledger_facts, ledger_rows, ledger_title
from cli.retrain import _estimate
from cli.training_plans import plan_context_rows, plan_snapshot
from configs.errors import PrivacyBudgetError, SnapshotError, StaleTokenError, TrainingError
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, Cause, Message, SnapshotRow, utc_now
from data_contracts.snapshots import publish
from flows.context import Context, open_context
from flows.ledger import Ledger
from flows.observer import PrintObserver
from flows.privacy import forget_key, owners, paid, person_of
from flows.run import Run
from flows.steps.train import train, training_job
from models.adapters import read_manifest
from store import privacy as ledger
from store import requests
from store.privacy import Voices
from tests.flows.flow_samples import add_corrections, tiny_config
from training.private_job import KEY, OWNERS

PRIVATE = {"epsilon": 2.0, "total_epsilon": 2.5, "people_per_step": 8}


def row(ident: str, source: str = "correction") -> SnapshotRow:
    return SnapshotRow(
        digest=digest(ident), split="train", source=source, messages=(Message(role="user", content=ident),),
        completion="Every Tuesday.", row_id="" if source == "replay" else ident,
    )  # fmt: skip


def private_config(state: Path, **privacy: Any) -> Any:
    training = {"privacy": {**PRIVATE, **privacy}, "objectives": {"dpo": {"weight": 0}}}
    return tiny_config(state, training=training)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    opened = open_context(private_config(tmp_path / "state"))
    yield opened
    opened.store.close()


def started(context: Context, rows: list[SnapshotRow]) -> Run:
    """A claimed retrain whose snapshot holds these rows."""
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    claimed = Ledger.claim(context.store, request.id, 60.0)
    assert claimed is not None
    run = Run(context, claimed, PrintObserver(quiet=True))
    published = publish(
        context.state.snapshots, rows, model=context.model, contract_digest="c" * 64, base_digest=context.base().digest,
        watermark=1, reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip
    run.outputs["snapshot"] = {"snapshot": published.model_dump(mode="json")}
    return run


def test_a_row_is_whose_request_it_is_about():
    voices = {"own": Voices("ann", "ann"), "reviewed": Voices("ann", "rita"), "late": Voices("", "cy")}
    found = {name: person_of(row(name), voices, {}) for name in voices}
    assert found == {"own": "person ann", "reviewed": "person ann", "late": "person cy"}
    assert person_of(row("incident:i1", "incident"), {}, {"i1": "ann"}) == "person ann"
    assert person_of(row("incident:i2", "incident"), {}, {"i2": ""}) == "incident:i2"
    with pytest.raises(SnapshotError, match="whose row this is"):
        person_of(row("gone"), voices, {})


def test_replay_is_nobodys_and_incidents_are_where_the_profile_says_so(tmp_path: Path, context: Context):
    (ident, *_) = add_corrections(context.store, context.model, per_topic=1)
    rows = [row(ident), row("incident:i1", "incident"), row("x", "replay"), row("incident:i1", "incident")]
    assert owners(context, rows) == ([0, 1, None, 1], 2)
    public = Context(private_config(tmp_path / "p", incidents="public"), context.state, context.store)
    assert owners(public, rows) == ([0, None, None, None], 1)
    with pytest.raises(TrainingError, match="nobody whose privacy"):
        owners(context, [row("x", "replay")])


@pytest.mark.slow
@pytest.mark.long
def test_a_round_is_paid_once_and_the_next_refused_when_the_budget_is_spent(context: Context, tmp_path: Path):
    pytest.importorskip("opacus")
    idents = add_corrections(context.store, context.model, per_topic=10)
    rows = [row(ident) for ident in idents]
    run = started(context, [*rows, row("x", "replay")])
    first = paid(run, training_job(run))["privacy"]
    artifact = AdapterArtifact.model_validate(train(run)["artifact"])  # pays again: same key, same noise, same charge
    assert artifact.metrics["noise_multiplier"] == first["mechanism"]["noise_multiplier"]
    assert read_manifest(Path(artifact.path))["privacy"]["charge"] == first["charge"]
    assert len(artifact.loss_curve) == 1  # of the step with the replay row, and of nobody
    facts = ledger_facts(context)
    assert [charge["id"] for charge in facts["charges"]] == [first["charge"]]
    assert (first["mechanism"]["people"], first["mechanism"]["sample_rate"]) == (30, 8 / 30)
    assert 1.9 < facts["spent_epsilon"] <= 2
    assert facts["left_epsilon"] == pytest.approx(2.5 - facts["spent_epsilon"])
    assert sorted(n for n in json.loads(Path(first["owners"]).read_text()) if n is not None) == list(range(30))

    forget_key(run)
    assert not list((run.work_dir / "training").glob("privacy.*"))
    with pytest.raises(PrivacyBudgetError) as caught:  # new noise is another look at the same people
        paid(run, training_job(run))
    assert run.request_id in str(caught.value)
    assert "lower training.privacy.epsilon to" in (caught.value.fix or "")
    with context.store.read() as conn:
        assert len(ledger.charges(conn, context.model)) == 1
    with pytest.raises(PrivacyBudgetError):  # a plan shows no noise for what would be refused
        plan_snapshot(context, run.snapshot.digest, quick=True, limit_mb=None)
    refused = _estimate(context, rows)
    assert (refused["rows"], refused["steps"], "privacy" in refused) == (30, 0, False)
    assert "does not allow another retrain" in refused["refused"]

    with context.store.write() as conn:
        requests.cancel(conn, run.request_id)
    richer = Context(private_config(tmp_path / "r", total_epsilon=9), context.state, context.store)
    late = Run(richer, run.ledger, run.observer, run.outputs)
    with pytest.raises(StaleTokenError):
        paid(late, training_job(late))

    profile = tmp_path / "mine.yaml"
    profile.write_text(json.dumps(context.config.model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "cli.main", "train", "privacy", "--json", "--profile", str(profile)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(told.stdout) == facts
    assert f"epsilon {facts['spent_epsilon']:.4g} spent, of 2.5" in ledger_title(facts)
    assert ledger_rows(facts)[0]["people"] == 30


def test_a_plan_says_the_noise(context: Context):
    pytest.importorskip("opacus")
    idents = add_corrections(context.store, context.model, per_topic=4)
    facts = plan_context_rows(context, [row(ident) for ident in idents], calibrated=False)
    assert facts["privacy"]["people"] == 12
    assert facts["privacy"]["noise_multiplier"] > 0.5
    assert facts["steps"] == facts["privacy"]["steps"] == round(context.config.training.epochs * 12 / 8)
    assert "it takes longer" in facts["note"]


def test_without_privacy_nothing_is_paid_or_written(tmp_path: Path, context: Context):
    plain = Context(tiny_config(tmp_path / "plain"), context.state, context.store)
    run = started(plain, [row("a")])
    assert paid(run, training_job(run)) == {}
    assert not (run.work_dir / "training" / KEY).exists()
    assert not (run.work_dir / "training" / OWNERS).exists()
