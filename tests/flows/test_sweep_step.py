"""The sweep among a retrain's steps: what each step depends on, with it and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, DatasetSnapshot, utc_now
from flows.context import open_context
from flows.observer import PrintObserver
from flows.pipeline import SWEEP_SETTINGS, _inputs
from flows.run import Run
from flows.steps.sweep import _name
from tests.flows.flow_samples import tiny_config

ADAPTER = AdapterArtifact(
    digest="a" * 64, path="/a", base_digest="b" * 64, dataset_digest="d" * 64, config_digest="c" * 64, code_commit="x",
    rank=4, alpha=8.0, steps=1, tokens=1, seconds=1.0,
)  # fmt: skip
SNAPSHOT = DatasetSnapshot(
    digest="d" * 64, path="/d", model="support-bot", created_at=utc_now(), contract_digest="c" * 64,
    base_digest="b" * 64, watermark=1, counts={}, row_ids=(),
)  # fmt: skip


def at_evaluation(root: Path, **evaluation: Any) -> Run:
    """A run that has trained and knows the champion."""
    context = open_context(tiny_config(root, evaluation=evaluation))
    run = Run(context, None, PrintObserver(quiet=True))  # type: ignore[arg-type]  # nothing here asks the ledger
    run.outputs |= {
        "snapshot": {"snapshot": SNAPSHOT.model_dump(mode="json")},
        "train": {"artifact": ADAPTER.model_dump(mode="json")},
        "pin_champion": {"version": "base", "adapter": None},
        "pin_best": {"version": "base", "adapter": None},
    }
    return run


def test_without_scales_every_step_depends_on_what_it_did_before(tmp_path: Path) -> None:
    run = at_evaluation(tmp_path, scale_gain_kept=0.9)
    section = {k: v for k, v in run.changed("evaluation").items() if k not in SWEEP_SETTINGS}
    assert "scale_gain_kept" in run.changed("evaluation")
    assert "scale_gain_kept" not in section
    assert _inputs(run, "evaluate") == {
        "adapter": ADAPTER.digest,
        "snapshot": SNAPSHOT.digest,
        "champion": "base",
        "best": "base",
        "evaluation": section,
    }
    run.outputs["evaluate"] = {"path": "/report.json"}
    assert _inputs(run, "gate") == {
        "report": "/report.json",
        "adapter": ADAPTER.digest,
        "gate": run.changed("gate"),
    }
    assert _inputs(run, "register") == {"adapter": ADAPTER.digest, "step": "register"}
    assert (run.artifact, run.scale_choice) == (ADAPTER, None)
    run.context.store.close()


def test_with_scales_what_follows_depends_on_the_choice(tmp_path: Path) -> None:
    run = at_evaluation(tmp_path, scales=[0.5, 1.0])
    asked = _inputs(run, "sweep")
    assert asked["adapter"] == ADAPTER.digest
    assert asked["gate"] == run.changed("gate"), "the choice keeps to the gate's margins"
    assert asked["evaluation"]["scales"] == [0.5, 1.0]
    half = ADAPTER.model_copy(update={"digest": "5" * 64, "alpha": 4.0})
    run.outputs["sweep"] = {"artifact": half.model_dump(mode="json"), "choice_digest": "one"}
    run.outputs["evaluate"] = {"path": "/report.json"}
    assert (run.artifact, run.trained) == (half, ADAPTER)
    before = {step: digest(_inputs(run, step)) for step in ("sweep", "evaluate", "gate", "register")}
    run.outputs["sweep"]["choice_digest"] = "another"
    after = {step: digest(_inputs(run, step)) for step in before}
    assert [step for step in before if before[step] != after[step]] == ["evaluate", "gate"]
    run.context.store.close()


def test_no_two_scales_share_a_name() -> None:
    assert [_name(scale) for scale in (0.5, 0.85, 1.0, 1)] == ["0.5", "0.85", "1", "1"]
    assert _name(0.1234567) != _name(0.1234568)
    assert not _name(1.0 - 1e-12).startswith("1")


@pytest.mark.parametrize(
    "settings",
    [{"scales": [1.0, 0.5]}, {"scales": [0.5, 0.5]}, {"scales": [0.0]}, {"scales": [1.5]}, {"reduce_intruders": True}],
)
def test_settings_that_cannot_be_meant_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"scales|intruders|greater|less"):
        tiny_config(tmp_path, evaluation=settings)
