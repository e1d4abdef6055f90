"""What the gate finds beside scores: likelihoods, negative flips, slices, the best accepted version, rules by name."""

from __future__ import annotations

import numpy as np
import pytest
from eval_reports import flipped, report, with_likelihoods

from configs.errors import ConfigError, EvaluationError
from configs.gate import GateSection, SuiteRule
from configs.loader import build_config
from data_contracts.records import EvalReport, Finding, GateDecision
from evaluation.gate import decide, kind_for, objective_for, planned_tests
from evaluation.report import render_html

ANCHORS = SuiteRule(kind="non_inferiority", margin=0.10)
POLICY = GateSection(anchors=ANCHORS, max_discordance=0.15, power=0.8)


def policy(**rule: object) -> GateSection:
    return POLICY.model_copy(update={"anchors": ANCHORS.model_copy(update=rule)})


def build(lost: int = 5, gained: int = 5, n: int = 120, **more: dict[str, list[int]]) -> EvalReport:
    """A first round that is better on its target; (lost, gained) of n anchors."""
    reference, candidate = flipped(n, n * 6 // 10, lost, gained)
    before, after = flipped(70, 5, 0, 50)
    return report(
        {
            "anchors": {"base": reference, "champion": reference, "candidate": candidate},
            "target": {"base": before, "champion": before, "candidate": after},
            **more,
        },
        first_round=True,
    )


def only(decision: GateDecision, measure: str, suite: str = "anchors") -> Finding:
    found = [f for f in decision.findings if (f.measure, f.suite) == (measure, suite)]
    assert len(found) == 1
    return found[0]


def test_likelihoods_are_shown_and_decide_only_where_the_policy_says() -> None:
    rng = np.random.default_rng(0)
    worse = with_likelihoods(build(), "anchors", [float(x) for x in rng.normal(-0.5, 0.3, 120)])
    free = decide(worse, POLICY, "superiority")
    assert (free.verdict, only(free, "log_likelihood").verdict) == ("pass", "shown")
    judged = decide(worse, policy(margin=0.12, nll_margin=0.3, nll_sd=0.5), "superiority")
    found = only(judged, "log_likelihood")
    assert (judged.verdict, found.verdict, found.n) == ("block", "block", 120)
    assert found.lower < found.value < found.upper < -0.3
    assert judged.reasons[0].startswith("anchors, log likelihood, against the champion: worse")
    same = with_likelihoods(build(), "anchors", [float(x) for x in rng.normal(0.0, 0.3, 120)])
    assert decide(same, policy(margin=0.12, nll_margin=0.3, nll_sd=0.5), "superiority").verdict == "pass"


def test_too_few_likelihoods_are_inconclusive_by_the_policy_alone() -> None:
    changes: list[float | None] = [0.0] * 40 + [None] * 80
    small = decide(with_likelihoods(build(), "anchors", changes), policy(nll_margin=0.1), "superiority")
    assert (small.verdict, only(small, "log_likelihood").verdict) == ("inconclusive", "inconclusive")
    assert "40 items with a reference answer" in only(small, "log_likelihood").reason
    none = decide(with_likelihoods(build(), "anchors", [None] * 120), policy(nll_margin=0.1), "superiority")
    assert (none.verdict, only(none, "log_likelihood").n) == ("inconclusive", 0)
    assert GateDecision.model_validate_json(none.model_dump_json()) == none, "a ledger keeps it"
    free = decide(with_likelihoods(build(), "anchors", [None] * 120), POLICY, "superiority")
    assert [f for f in free.findings if (f.measure, f.suite) == ("log_likelihood", "anchors")] == []


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), None])
def test_a_likelihood_that_is_no_number_or_of_one_model_only_is_an_error(broken: float | None) -> None:
    whole = build()
    by = whole.scores["anchors"]
    items = (by["candidate"].items[0].model_copy(update={"nll": broken}), *by["candidate"].items[1:])
    bad = {**by, "candidate": by["candidate"].model_copy(update={"items": items})}
    with pytest.raises(EvaluationError, match="log-likelihood is missing or not a number"):
        decide(whole.model_copy(update={"scores": {**whole.scores, "anchors": bad}}), POLICY, "superiority")


def test_negative_flips_are_bounded_and_gated_where_asked() -> None:
    shown = only(decide(build(lost=9, gained=9), POLICY, "superiority"), "negative_flips")
    assert (shown.value, shown.verdict, shown.limit) == (9 / 120, "shown", None)
    assert shown.lower < 9 / 120 < shown.upper
    limited = policy(max_nfr=0.15, max_discordance=0.1)
    assert decide(build(lost=9, gained=9), limited, "superiority").verdict == "pass"
    over = decide(build(lost=15, gained=15), limited, "superiority")
    assert (over.verdict, only(over, "negative_flips").verdict) == ("block", "block")
    assert all(v.verdict == "pass" for v in over.suites), "net nothing is lost: only the rate sees it"
    unprovable = decide(build(lost=1, gained=1), policy(max_nfr=0.06, max_discordance=0.1), "superiority")
    assert only(unprovable, "negative_flips").verdict == "inconclusive"


def sliced(lost_in: int, size: int, slices: int = 12) -> EvalReport:
    """360 anchors in slices of 30 with the losses in the first `size` items."""
    reference = [1] * 300 + [0] * 60
    candidate = [0] * lost_in + [1] * (300 - lost_in) + [1] * lost_in + [0] * (60 - lost_in)
    before, after = flipped(70, 5, 0, 50)
    names = {f"anchors-{i}": f"skill {i // size} | language {'de' if i % 2 else 'en'}" for i in range(360)}
    return report(
        {
            "anchors": {"base": reference, "champion": reference, "candidate": candidate},
            "target": {"base": before, "champion": before, "candidate": after},
        },
        first_round=True,
        slices={"anchors": names},
    )


def test_a_slice_that_lost_significantly_is_a_warning_and_decides_nothing() -> None:
    decision = decide(sliced(15, 30), POLICY, "superiority")
    assert decision.verdict == "pass"
    slices = {f.slice: f for f in decision.findings if f.measure == "slice"}
    assert set(slices) == {*(f"skill {i}" for i in range(12)), "language de", "language en"}
    warned = [name for name, f in slices.items() if f.verdict == "warning"]
    assert warned == ["skill 0"]
    assert "Holm over 14 slices" in slices["skill 0"].reason
    assert (slices["skill 0"].n, slices["skill 0"].lost) == (30, 15)
    assert decision.without_words.findings == tuple(f for f in decision.findings if f.measure != "slice")
    html = render_html(sliced(15, 30), decision, artifact=None, snapshot=None, title="slices")
    assert "anchors, slice skill 0: lost significantly" in html
    assert decide(sliced(0, 30), POLICY, "superiority").findings[-1].verdict == "shown"


def test_a_slice_the_policy_names_must_be_no_worse_by_itself() -> None:
    named = policy(slices={"skill 0": 0.4, "language de": 0.2})
    assert decide(sliced(0, 30), named, "superiority").verdict == "pass"
    blocked = decide(sliced(15, 30), named, "superiority")
    assert blocked.verdict == "block"
    assert blocked.reasons[0].startswith("anchors, slice skill 0, against the champion")
    small = decide(sliced(0, 30), policy(slices={"skill 0": 0.05}), "superiority")
    assert (small.verdict, "too small to decide: 30 items" in small.reasons[0]) == ("inconclusive", True)
    absent = decide(sliced(0, 30), policy(slices={"French": 0.4}), "superiority")
    assert (absent.verdict, "no item of the suite is in this slice" in absent.reasons[0]) == ("inconclusive", True)
    kept = blocked.without_words.findings
    assert {f.slice for f in kept if f.measure == "slice"} == {"skill 0", "language de"}, "words of the policy stay"


def test_the_best_accepted_version_is_a_reference_at_twice_the_margin() -> None:
    n = 300
    best = [1] * 240 + [0] * 60
    champion = [0] * 40 + [1] * 200 + [0] * 60
    base = [0] * 60 + [1] * 180 + [0] * 60
    target = {"base": [0] * 70, "champion": [0] * 40 + [1] * 30, "candidate": [0] * 5 + [1] * 65}
    anchors = {"base": base, "champion": champion, "best": best, "candidate": [0] * 66 + [1] * 174 + [0] * 60}
    whole = report({"anchors": anchors, "target": target})
    decision = decide(whole, POLICY, "superiority")
    sides = {v.against: v for v in decision.suites if v.suite == "anchors"}
    assert {side: v.verdict for side, v in sides.items()} == {"champion": "block", "base": "pass", "best": "block"}
    assert (sides["best"].margin, sides["champion"].margin, len(best)) == (0.2, 0.1, n)
    assert any(reason.startswith("anchors against the best accepted version: ") for reason in decision.reasons)
    assert [v.against for v in decision.suites if v.suite == "target"] == ["champion", "base"]
    html = render_html(whole, decision, artifact=None, snapshot=None, title="x")
    assert 'class="fill best"' in html
    assert "vs best accepted version" in html


def test_nobody_must_beat_a_version_that_no_longer_serves() -> None:
    rule = SuiteRule(kind="superiority", margin=0.1)
    named = POLICY.model_copy(update={"suites": {"own": rule}})
    assert kind_for("own", named, "superiority", "champion") == "superiority"
    assert kind_for("own", named, "superiority", "best") == "non_inferiority"
    assert kind_for("own", named, "non_inferiority") == "non_inferiority"


def test_rules_by_suite_name_win_over_the_anchors() -> None:
    reference, candidate = flipped(120, 100, 40, 0)
    harmed = build(style={"base": reference, "champion": reference, "candidate": candidate})
    assert decide(harmed, POLICY, "superiority").verdict == "block"
    shown = POLICY.model_copy(update={"suites": {"style": SuiteRule(kind="shown", max_nfr=0.01, slices={"x": 0.1})}})
    decision = decide(harmed, shown, "superiority")
    assert decision.verdict == "pass"
    assert {v.suite: v.verdict for v in decision.suites}["style"] == "shown"
    assert planned_tests(harmed, shown, "superiority") == 1
    must_rise = POLICY.model_copy(update={"suites": {"style": SuiteRule(kind="superiority")}})
    assert "not shown to be better" in decide(harmed, must_rise, "superiority").reasons[0]
    listed = POLICY.model_copy(update={"suites": {"style": SuiteRule(kind="list", margin=0.35)}})
    assert decide(harmed, listed, "superiority").verdict == "pass"
    strict = POLICY.model_copy(update={"suites": {"style": SuiteRule(kind="list", margin=0.0)}})
    assert "loses 40 behaviour(s)" in decide(harmed, strict, "superiority").reasons[0]


def test_a_suite_the_policy_names_and_nobody_ran_is_inconclusive() -> None:
    named = POLICY.model_copy(update={"suites": {"safety": ANCHORS}})
    decision = decide(build(), named, "superiority")
    assert decision.verdict == "inconclusive"
    assert decision.reasons[0] == "the policy names the suite safety, which was not run"
    switched_off = POLICY.model_copy(update={"suites": {"probes": SuiteRule(kind="shown")}})
    assert decide(build(), switched_off, "superiority").verdict == "pass"
    only_shown = POLICY.model_copy(update={"suites": {"anchors": SuiteRule(kind="shown")}})
    assert decide(build(), only_shown, "superiority").verdict == "inconclusive", "what is shown proves nothing"


def test_every_further_test_asks_for_more_power() -> None:
    whole = build()
    assert planned_tests(whole, POLICY, "superiority") == 1
    assert planned_tests(whole, POLICY, "non_inferiority") == 2
    more = policy(nll_margin=0.1, max_nfr=0.2, slices={"a": 0.1, "b": 0.1})
    assert planned_tests(whole, more, "superiority") == 5


@pytest.mark.parametrize(
    ("causes", "objective"),
    [
        (["feedback"], "superiority"),
        (["drift"], "superiority"),
        (["incident"], "superiority"),
        (["manual"], "superiority"),
        (["schedule"], "non_inferiority"),
        (["erasure"], "non_inferiority"),
        (["schedule", "feedback"], "superiority"),
        (["schedule", "drift", "incident"], "superiority"),
        (["erasure", "feedback", "incident"], "non_inferiority"),
        (["schedule", "erasure"], "non_inferiority"),
    ],
)
def test_the_causes_of_a_retrain_say_what_it_has_to_show(causes: list[str], objective: str) -> None:
    assert objective_for(causes) == objective


def test_a_policy_is_read_from_yaml_and_misspelt_rules_are_refused() -> None:
    safety = {"kind": "non_inferiority", "margin": 0.01, "nll_margin": 0.2, "slices": {"de": 0.05}}
    read = build_config({"gate": {"suites": {"safety": safety}}}).gate
    assert (read.suites["safety"].nll_margin, read.suites["safety"].slices) == (0.2, {"de": 0.05})
    with pytest.raises(ConfigError, match=r"gate\.suites\.target"):
        build_config({"gate": {"suites": {"target": {"kind": "shown"}}}})
    with pytest.raises(ConfigError):
        build_config({"gate": {"suites": {"safety": {"kind": "non_inferiority", "nll_margins": 1}}}})
