"""Decisions drawn again from real per-item results."""

from __future__ import annotations

import pytest
from eval_reports import flipped, report, with_likelihoods

from configs.gate import GateSection, SuiteRule
from data_contracts.records import EvalReport
from evaluation.resample import resampled_decisions

POLICY = GateSection(
    anchors=SuiteRule(kind="non_inferiority", margin=0.10, slices={"half": 0.3}), max_discordance=0.15, power=0.8
)


def results(lost: int, gained: int) -> EvalReport:
    reference, candidate = flipped(160, 100, lost, gained)
    suites = {
        "anchors": {"base": reference, "champion": reference, "candidate": candidate},
        "incidents": {"base": [0, 0], "champion": [0, 0], "candidate": [1, 1]},
    }
    slices = {"anchors": {f"anchors-{i}": "half" for i in range(80)}}
    return report(suites, first_round=True, slices=slices)


def test_planted_forgetting_is_stopped_and_a_no_op_is_not() -> None:
    planted = resampled_decisions(results(45, 4), POLICY, "non_inferiority", count=60)
    assert (planted.decisions, planted.stopped, planted.suites["anchors"]) == (60, 1.0, {"block": 60})
    assert planted.suites["incidents"] == {"pass": 60}, "a list is not drawn again"
    no_op = resampled_decisions(results(2, 2), POLICY, "non_inferiority", count=60)
    assert no_op.stopped <= 0.05


def test_the_same_seed_draws_the_same_and_models_stay_paired() -> None:
    whole = with_likelihoods(results(14, 6), "anchors", [0.01 * i for i in range(160)])
    once = resampled_decisions(whole, POLICY, "non_inferiority", count=40, seed=3)
    assert once == resampled_decisions(whole, POLICY, "non_inferiority", count=40, seed=3)
    assert 0 < once.verdicts["pass"] < 40, "on the edge both verdicts occur"
    unchanged = resampled_decisions(results(0, 0), POLICY, "non_inferiority", count=20)
    assert unchanged.verdicts == {"pass": 20}, "an item's own correlation is kept: nothing flips"
    with pytest.raises(ValueError, match="at least 1"):
        resampled_decisions(whole, POLICY, "non_inferiority", count=0)


def test_a_larger_suite_decides_what_a_small_one_cannot() -> None:
    edge = results(11, 8)
    own = resampled_decisions(edge, POLICY, "non_inferiority", count=40)
    larger = resampled_decisions(edge, POLICY, "non_inferiority", count=40, sizes={"anchors": 1200})
    assert larger.stopped < own.stopped
    assert larger.suites["incidents"] == {"pass": 40}
