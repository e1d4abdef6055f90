"""What a retrain on its way keeps when settings change, or Tidemill does."""

from __future__ import annotations

from pathlib import Path

from configs.deciding import deciding
from configs.schema import TrainingSection
from data_contracts.records import Cause, utc_now
from flows.context import open_context
from flows.ledger import Ledger, Output
from flows.observer import PrintObserver
from flows.pipeline import Work, _steps
from flows.run import Run
from store import requests, steps
from tests.flows.flow_samples import tiny_config


def test_a_retrain_whose_canary_is_out_only_waits_for_it(tmp_path: Path) -> None:
    context = open_context(tiny_config(tmp_path))
    with context.store.write() as conn:
        cause = Cause(kind="manual", detail={}, at=utc_now())
        request, _ = requests.open_or_attach(conn, context.model, cause, status="ready")
    ledger = Ledger.claim(context.store, request.id, 60)
    assert ledger is not None
    adapter = {"digest": "a" * 64, "path": "/a", "base_digest": "b" * 64, "dataset_digest": "d" * 64}
    artifact = {**adapter, "config_digest": "c" * 64, "code_commit": "", "rank": 1, "alpha": 1.0, "steps": 1}
    outputs: dict[str, Output] = {
        "train": {"artifact": {**artifact, "tokens": 1, "seconds": 1.0, "metrics": {}, "loss_curve": []}},
        "begin_rollout": {"rollout": "r"},
    }
    with context.store.write() as conn:
        for name, output in outputs.items():
            steps.begin(conn, request.id, name, "a digest of other settings", ledger.request.token)
            steps.complete(conn, request.id, name, ledger.request.token, output)
    asked: list[str] = []

    def wrap(name: str, _work: Work) -> Output:
        asked.append(name)
        return {"state": "promoted", "reason": "shown to be better"}

    with ledger:
        run = Run(context, ledger, PrintObserver(quiet=True))
        assert _steps(run, wrap) == ("promoted", "shown to be better")
    assert asked == ["await_rollout"]
    context.store.close()


def test_settings_at_their_default_are_no_part_of_a_steps_input(tmp_path: Path) -> None:
    context = open_context(tiny_config(tmp_path))
    run = Run(context, None, PrintObserver(quiet=True))  # type: ignore[arg-type]  # nothing here asks the ledger
    for name in ("training", "evaluation", "gate", "curation"):
        section = getattr(context.config, name)
        at_default = {
            field for field, info in type(section).model_fields.items() if getattr(section, field) == info.default
        }
        assert at_default
        assert not at_default & run.changed(name).keys()
    context.store.close()


def test_what_decides_nothing_about_the_adapter_is_left_out() -> None:
    privacy = {"epsilon": 4, "total_epsilon": 16}
    objectives = {"dpo": {"weight": 0}}
    plain = deciding(TrainingSection.model_validate({"privacy": privacy, "objectives": objectives}))
    how = {"checkpoint_steps": 3, "checkpoint_minutes": 1, "privacy": {**privacy, "total_epsilon": 32}}
    assert deciding(TrainingSection.model_validate({**how, "objectives": objectives})) == plain
    other = {"privacy": {**privacy, "epsilon": 5}, "objectives": objectives}
    assert deciding(TrainingSection.model_validate(other)) != plain
    assert deciding(TrainingSection(distributed={"processes": 2})) == deciding(TrainingSection())  # type: ignore[arg-type]
    assert deciding(TrainingSection(learning_rate=1e-3)) != deciding(TrainingSection())
