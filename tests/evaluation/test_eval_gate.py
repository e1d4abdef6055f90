"""The gate decides for the right reasons, and never on missing scores."""

from __future__ import annotations

import numpy as np
import pytest
from eval_reports import flipped, report

from configs.errors import EvaluationError
from configs.schema import GateSection, SuiteRule
from data_contracts.records import EvalReport
from evaluation.gate import decide

POLICY = GateSection(
    anchors=SuiteRule(kind="non_inferiority", margin=0.10),
    target=SuiteRule(kind="superiority", margin=0.10),
    max_discordance=0.15,
    power=0.8,
)


def build(
    anchors: tuple[int, int] = (5, 5),
    target: tuple[int, int] = (0, 50),
    incidents: list[int] | None = None,
    n: int = 120,
) -> EvalReport:
    """A first-round report: (lost, gained) per suite; the incidents' candidate scores."""
    reference, candidate = flipped(n, n * 6 // 10, *anchors)
    t_reference, t_candidate = flipped(70, 5, *target)
    suites = {
        "anchors": {"base": reference, "champion": reference, "candidate": candidate},
        "target": {"base": t_reference, "champion": t_reference, "candidate": t_candidate},
    }
    if incidents is not None:
        zeros = [0] * len(incidents)
        suites["incidents"] = {"base": zeros, "champion": zeros, "candidate": incidents}
    return report(suites, first_round=True)


def test_better_and_nothing_forgotten_passes() -> None:
    decision = decide(build(), POLICY, "superiority")
    assert decision.verdict == "pass"
    assert decision.accepted
    assert {v.against for v in decision.suites} == {"champion"}, "in the first round the champion is the base"


def test_forgetting_blocks_with_the_suite_named() -> None:
    decision = decide(build(anchors=(25, 3)), POLICY, "superiority")
    assert decision.verdict == "block"
    assert any("anchors against the champion" in reason for reason in decision.reasons)


def test_no_gain_blocks_superiority_but_not_an_erasure() -> None:
    unchanged = build(target=(0, 0))
    assert decide(unchanged, POLICY, "superiority").verdict == "block"
    roomy = POLICY.model_copy(update={"target": SuiteRule(kind="superiority", margin=0.15), "max_discordance": 0.1})
    assert decide(unchanged, roomy, "non_inferiority").verdict == "pass"


def test_too_small_is_inconclusive_even_without_a_flip() -> None:
    small = build(anchors=(0, 0), n=20)
    decision = decide(small, POLICY, "superiority")
    assert decision.verdict == "inconclusive"
    assert not decision.accepted
    assert any("too small to decide: 20 items" in reason for reason in decision.reasons)
    lenient = POLICY.model_copy(update={"inconclusive_blocks": False})
    assert decide(small, lenient, "superiority").verdict == "pass"


def test_two_points_need_133_items() -> None:
    policy = POLICY.model_copy(update={"anchors": SuiteRule(kind="non_inferiority", margin=0.02, max_discordance=0.0)})
    assert decide(build(anchors=(0, 0), n=132), policy, "superiority").verdict == "inconclusive"
    assert decide(build(anchors=(0, 0), n=133), policy, "superiority").verdict == "pass"


def test_evident_harm_blocks_even_when_the_suite_is_too_small() -> None:
    lenient = POLICY.model_copy(update={"inconclusive_blocks": False})
    assert decide(build(anchors=(18, 0), n=40), lenient, "superiority").verdict == "block"


def test_few_incidents_are_a_list_not_a_sample() -> None:
    assert decide(build(incidents=[1]), POLICY, "superiority").verdict == "pass"
    blocked = decide(build(incidents=[1, 0]), POLICY, "superiority")
    assert blocked.verdict == "block"
    assert any("passes 1 of 2 required behaviours" in reason for reason in blocked.reasons)
    assert decide(build(incidents=[]), POLICY, "superiority").verdict == "pass", "no incident = suite absent"


def test_an_incident_the_champion_had_right_may_not_be_lost() -> None:
    policy = POLICY.model_copy(update={"incidents": SuiteRule(kind="non_inferiority", margin=0.0, min_pass=0.5)})
    base = build().scores
    lost = build().model_copy(
        update={
            "scores": {
                **base,
                **report(
                    {"incidents": {"base": [0, 1], "champion": [0, 1], "candidate": [1, 0]}}, first_round=True
                ).scores,
            }
        }
    )
    decision = decide(lost, policy, "superiority")
    assert decision.verdict == "block"
    assert any("loses 1 behaviour" in reason for reason in decision.reasons)


def test_creeping_forgetting_is_caught_against_the_base() -> None:
    n = 200
    base = [1] * 150 + [0] * 50
    champion = [0] * 40 + [1] * 110 + [0] * 50
    target = {"base": [0] * 70, "champion": [0] * 40 + [1] * 30, "candidate": [0] * 5 + [1] * 65}
    decision = decide(
        report({"anchors": {"base": base, "champion": champion, "candidate": champion}, "target": target}),
        POLICY,
        "superiority",
    )
    by_side = {v.against: v for v in decision.suites if v.suite == "anchors"}
    assert by_side["champion"].verdict == "pass"
    assert by_side["base"].verdict == "block"
    assert by_side["base"].margin == pytest.approx(0.2)
    assert decision.verdict == "block"
    assert len(base) == n


def test_absent_suites_are_inconclusive_not_a_pass() -> None:
    whole = build()
    only_target = whole.model_copy(update={"scores": {"target": whole.scores["target"]}})
    assert decide(only_target, POLICY, "superiority").verdict == "inconclusive"
    only_anchors = whole.model_copy(update={"scores": {"anchors": whole.scores["anchors"]}})
    assert decide(only_anchors, POLICY, "superiority").verdict == "inconclusive"
    assert decide(only_anchors, POLICY, "non_inferiority").verdict == "pass"


def test_missing_scores_are_errors() -> None:
    whole = build()
    anchors = whole.scores["anchors"]
    for broken in (
        {k: v for k, v in anchors.items() if k != "candidate"},
        {**anchors, "candidate": anchors["candidate"].model_copy(update={"items": anchors["candidate"].items[1:]})},
        {
            **anchors,
            "candidate": anchors["candidate"].model_copy(
                update={
                    "items": (
                        anchors["candidate"].items[0].model_copy(update={"score": float("nan")}),
                        *anchors["candidate"].items[1:],
                    )
                }
            ),
        },
    ):
        with pytest.raises(EvaluationError):
            decide(whole.model_copy(update={"scores": {**whole.scores, "anchors": broken}}), POLICY, "superiority")


def test_a_smallest_pass_share_holds_for_any_suite() -> None:
    policy = POLICY.model_copy(update={"target": SuiteRule(kind="superiority", min_pass=0.95)})
    assert decide(build(), policy, "superiority").verdict == "block"


def test_no_op_retrains_pass_as_often_as_the_policy_planned() -> None:
    rng = np.random.default_rng(3)
    policy = POLICY.model_copy(update={"max_discordance": 0.12})
    passed = 0
    for _ in range(200):
        lost, gained, _ = rng.multinomial(120, [0.06, 0.06, 0.88]).tolist()
        passed += decide(build(anchors=(lost, gained)), policy, "superiority").verdict == "pass"
    assert passed / 200 >= policy.power
