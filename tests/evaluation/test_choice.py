"""The strength that goes to the gate: within the margins, most of the gain, fewest lost."""

from __future__ import annotations

import pytest
from eval_reports import flipped, report

from configs.schema import GateSection, SuiteRule
from data_contracts.records import EvalReport
from evaluation.choice import ScalePoint, choose, choose_among, mark_front, measure
from evaluation.report_scales import scales_section

POLICY = GateSection(
    anchors=SuiteRule(kind="non_inferiority", margin=0.15, max_discordance=0.15),
    target=SuiteRule(kind="superiority"),
    power=0.8,
)


def half(lost: int, gained: int, right: int, incident: int = 1) -> EvalReport:
    """A candidate on 65 anchors, 50 target items of which the base gets none, and one incident."""
    base, candidate = flipped(65, 40, lost, gained)
    return report(
        {
            "target": {"base": [0] * 50, "champion": [0] * 50, "candidate": [1] * right + [0] * (50 - right)},
            "incidents": {"base": [0], "champion": [0], "candidate": [incident]},
            "anchors": {"base": base, "champion": base, "candidate": candidate},
        },
        first_round=True,
    )


def chosen(**points: tuple[int, int, int] | tuple[int, int, int, int]) -> tuple[str, str]:
    """Candidates `s30=(lost, gained, right, incident)` at scale .30 and so on; (name, reason)."""
    reports = {name: half(*values) for name, values in points.items()}
    scales = {name: int(name[1:]) / 100 for name in points}
    found = choose_among(reports, scales, POLICY, "superiority", 0.95, {"anchors": ["a"]})
    assert found.point is not None
    assert found.selected_on == {"anchors": ("a",)}
    return found.chosen, found.reason


def test_most_of_the_gain_for_the_fewest_lost() -> None:
    name, reason = chosen(s30=(0, 0, 20), s70=(2, 1, 46), s85=(3, 1, 48), s100=(4, 2, 48))
    assert name == "s70", "46 is more than 95 % of 48 and loses fewer"
    assert "2 of 65" in reason
    assert chosen(s30=(0, 0, 20), s70=(2, 1, 45), s85=(3, 1, 48), s100=(4, 2, 48))[0] == "s85", "45 is less"


def test_a_scale_outside_the_margins_is_not_chosen_whatever_it_gains() -> None:
    assert chosen(s50=(2, 1, 25), s100=(15, 1, 50))[0] == "s50"


def test_a_scale_that_fails_an_incident_is_not_chosen() -> None:
    assert chosen(s50=(0, 0, 48, 0), s100=(2, 1, 48, 1))[0] == "s100"


def test_ties_go_to_the_larger_gain_and_then_to_the_smaller_scale() -> None:
    assert chosen(s50=(2, 1, 47), s70=(2, 1, 48), s85=(2, 1, 48))[0] == "s70"


def test_where_nothing_gains_the_least_harm_is_taken() -> None:
    assert chosen(s50=(1, 0, 0), s100=(0, 0, 0))[0] == "s100"


def test_where_none_is_within_the_margins_the_one_that_misses_by_least() -> None:
    name, reason = chosen(s50=(14, 0, 10), s100=(25, 0, 50))
    assert name == "s50"
    assert "no scale" in reason
    assert chosen(s50=(1, 0, 48, 0), s100=(2, 0, 48, 0))[1].startswith("no scale"), "all fail the incident"


def test_a_candidate_that_a_finding_would_block_does_not_qualify() -> None:
    """Nine lost and nine gained are within the margin; as negative flips they are too many."""
    strict = POLICY.model_copy(update={"anchors": POLICY.anchors.model_copy(update={"max_nfr": 0.05})})
    reports = {"0.5": half(4, 2, 20), "1": half(9, 9, 50)}
    scales = {"0.5": 0.5, "1": 1.0}
    assert choose_among(reports, scales, POLICY, "superiority", 0.95, {}).chosen == "1"
    found = choose_among(reports, scales, strict, "superiority", 0.95, {})
    assert found.chosen == "0.5"
    stopped = found.points[1]
    assert (stopped.slack > 0, stopped.incidents_kept, stopped.qualifies) == (True, True, False)
    assert "no: anchors, negative flips" in scales_section(found)
    alone = choose_among({"1": reports["1"]}, scales, strict, "superiority", 0.95, {})
    assert alone.reason.startswith("no scale passes the gate's tests")
    assert alone.reason.endswith("(anchors, negative flips, against the champion)")


def test_both_reference_models_and_every_anchor_suite_count() -> None:
    base, candidate = flipped(65, 40, 2, 2)
    champion = [1] * 60 + [0] * 5
    small = report(
        {
            "anchors": {"base": base, "champion": base, "candidate": candidate},
            "tone": {"base": base, "champion": champion, "candidate": candidate},
        }
    )
    point = measure("1", 1.0, small, POLICY, "non_inferiority")
    assert not point.qualifies, "far from the champion on the second suite"
    assert (point.anchors, point.target, point.gain) == (130, None, None)
    assert point.lost == 2 + sum(a > b for a, b in zip(champion, candidate, strict=True))


def point(name: str, gain: float | None, lost: int, slack: float = 0.05) -> ScalePoint:
    return ScalePoint(
        name=name, scale=float(name), digest="", gain=gain, anchors=65, lost=lost, gained=0, slack=slack,
        incidents_kept=True,
    )  # fmt: skip


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    marked = mark_front([point("0.3", 0.2, 0), point("0.5", 0.5, 2), point("0.7", 0.5, 3), point("1", 0.4, 4)])
    assert [p.name for p in marked if p.front] == ["0.3", "0.5"]
    twins = mark_front([point("0.5", 0.5, 2), point("1", 0.5, 2)])
    assert all(p.front for p in twins), "equals do not beat each other"


@pytest.mark.parametrize("kept", [0.5, 0.95, 1.0])
def test_what_is_chosen_within_the_margins_is_on_the_front(kept: float) -> None:
    points = mark_front(
        [point(f"{s / 10:g}", g, n) for s, g, n in [(3, 0.2, 0), (5, 0.5, 2), (7, 0.49, 1), (10, 0.6, 5)]]
    )
    name, _ = choose(points, kept)
    assert next(p for p in points if p.name == name).front


def test_a_target_that_was_not_looked_at_leaves_the_largest_scale_within_the_margins() -> None:
    points = [point("0.3", None, 0), point("0.7", None, 3), point("1", None, 9, slack=-0.02)]
    assert choose(points, 0.95)[0] == "0.7"
    assert not any(p.front for p in mark_front(points))


def with_more(rule: SuiteRule, candidate: list[int]) -> ScalePoint:
    """A harmless candidate with one more suite of 40 items, of which the base gets the first 20."""
    base = [1] * 20 + [0] * 20
    more = report({"more": {"base": base, "champion": base, "candidate": candidate}}, first_round=True)
    whole = half(1, 1, 48)
    policy = POLICY.model_copy(update={"suites": {"more": rule}})
    both = whole.model_copy(update={"scores": {**whole.scores, **more.scores}})
    return measure("1", 1.0, both, policy, "superiority")


def test_a_suite_that_is_only_shown_chooses_nothing() -> None:
    alone = measure("1", 1.0, half(1, 1, 48), POLICY, "superiority")
    shown = with_more(SuiteRule(kind="shown"), [0] * 40)
    assert shown.model_dump() == alone.model_dump()
    assert with_more(SuiteRule(kind="non_inferiority", margin=0.15), [0] * 40).slack < 0


def test_a_users_list_must_be_kept_and_has_no_bound() -> None:
    rule = SuiteRule(kind="list", margin=0.0)
    assert not with_more(rule, [0] * 40).incidents_kept
    kept = with_more(rule, [1] * 40)
    assert kept.incidents_kept
    assert kept.slack == measure("1", 1.0, half(1, 1, 48), POLICY, "superiority").slack


def test_a_suite_that_must_get_better_is_held_to_its_gain() -> None:
    rule = SuiteRule(kind="superiority", margin=0.1)
    assert with_more(rule, [1] * 20 + [0] * 20).slack < 0, "as good as before is not better"
    assert with_more(rule, [1] * 40).slack > 0
