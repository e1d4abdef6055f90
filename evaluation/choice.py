"""Which of several strengths of an adapter goes to the gate: the rule, and gain against forgetting. Pure.

The rule, on the selection half (`evaluation/halves.py`):

1. a candidate qualifies if it keeps every list (incidents, probes, others the policy calls one), and on every anchor
   suite that is judged the lower bound of its difference to the champion and to the base lies above the gate's margin:
   the gate's own test, made on items the gate will not see; and none of the gate's further findings there (likelihoods,
   negative flips, slices) blocks it;
2. of those that qualify, the ones that keep at least `gain_kept` of the largest gain on the target are as good as each
   other (half a target suite cannot tell them apart), and the one that lost fewest anchors is chosen; then the larger
   gain, then the smaller scale;
3. where the target is too small to be looked at, the largest scale that qualifies;
4. where none qualifies, of those that keep the lists the one whose bound misses its margin by least (or lies farthest
   above it, where findings block them all): the gate will judge that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from configs.schema import GateSection
from data_contracts.records import EvalReport, Record
from evaluation.gate import TARGET, Objective, decide
from evaluation.halves import is_list

_EPS = 1e-9


class ScalePoint(Record):
    """One candidate on the selection half."""

    name: str
    """The scale as people write it, or what was done to the weights."""
    scale: float
    digest: str
    target: float | None = None
    """Share of target items answered as required; None where the target was not looked at."""
    gain: float | None = None
    """Target, candidate minus champion."""
    anchors: int
    """Anchor items of all suites."""
    lost: int
    """Anchors 1 -> 0 against the champion."""
    gained: int
    slack: float
    """Least distance of an anchor suite's lower bound above its margin; below 0 the gate's test would fail here."""
    incidents_kept: bool
    blocked: tuple[str, ...] = ()
    """Titles of the gate's findings that would block it here."""
    front: bool = False
    """On the Pareto front of gain and lost anchors: no other candidate is as good in both and better in one."""

    @property
    def qualifies(self) -> bool:
        return self.incidents_kept and self.slack > 0 and not self.blocked


class ScaleChoice(Record):
    """What was tried, on which items, and what goes on to the gate."""

    points: tuple[ScalePoint, ...] = ()
    chosen: str = ""
    """Name of a point; empty where nothing was tried."""
    reason: str
    gain_kept: float = 1.0
    selected_on: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Suite -> digests of the items that chose; the gate must not see them, but for incidents."""

    @property
    def point(self) -> ScalePoint | None:
        """The chosen point."""
        return next((p for p in self.points if p.name == self.chosen), None)


def measure(name: str, scale: float, report: EvalReport, policy: GateSection, objective: Objective) -> ScalePoint:
    """One candidate's figures from its report on the selection half.

    Raises:
        EvaluationError: a score is missing.
    """
    decision = decide(report, policy, objective)
    verdicts = decision.suites
    listed = {v.suite for v in verdicts if is_list(v.suite, policy)}
    anchors = [v for v in verdicts if v.suite not in (TARGET, *listed) and v.verdict != "shown"]
    against = [v for v in anchors if v.against == "champion"]
    above = [v.lower - (v.margin if v.kind == "superiority" else -v.margin) for v in anchors]
    target = report.scores.get(TARGET)
    return ScalePoint(
        name=name,
        scale=scale,
        digest=report.candidate_digest,
        target=target["candidate"].mean if target else None,
        gain=target["candidate"].mean - target["champion"].mean if target else None,
        anchors=sum(v.n for v in against),
        lost=sum(v.lost for v in against),
        gained=sum(v.gained for v in against),
        slack=min(above, default=1.0),
        incidents_kept=all(v.verdict == "pass" for v in verdicts if v.suite in listed),
        blocked=tuple(f.title for f in decision.findings if f.verdict == "block"),
    )


def _dominates(a: ScalePoint, b: ScalePoint) -> bool:
    if a.gain is None or b.gain is None:
        return False
    no_worse = a.gain >= b.gain - _EPS and a.lost <= b.lost
    return no_worse and (a.gain > b.gain + _EPS or a.lost < b.lost)


def mark_front(points: Sequence[ScalePoint]) -> tuple[ScalePoint, ...]:
    """The points with the Pareto front marked; without a target there is none."""
    return tuple(
        p.model_copy(update={"front": p.gain is not None and not any(_dominates(q, p) for q in points)}) for p in points
    )


def choose(points: Sequence[ScalePoint], gain_kept: float) -> tuple[str, str]:
    """(name of the chosen point, why), by the rule above.

    Args:
        points: at least one.
        gain_kept: share of the largest gain that is as good as all of it, in (0, 1].
    """
    fit = [p for p in points if p.qualifies]
    if not fit:
        best = max(points, key=lambda p: (p.incidents_kept, round(p.slack, 9), p.gain or 0.0, -p.scale))
        if not best.incidents_kept:
            what = "loses incidents or probes, as all do,"
        else:
            what = (
                "fails by least" if best.slack <= 0 else f"is farthest within the margins ({'; '.join(best.blocked)})"
            )
        return best.name, f"no scale passes the gate's tests on the selection half; {best.name} {what}"
    gains = [p.gain for p in fit if p.gain is not None]
    if not gains:
        best = max(fit, key=lambda p: p.scale)
        return best.name, f"{best.name} is the largest scale within the margins; the target is too small to choose by"
    top = max(gains)
    floor = top * gain_kept if top > 0 else top
    good = [(p, p.gain) for p in fit if p.gain is not None and p.gain >= floor - _EPS]
    best, gain = min(good, key=lambda pair: (pair[0].lost, round(-pair[1], 9), pair[0].scale))
    return best.name, (
        f"{best.name} lost fewest anchors ({best.lost} of {best.anchors}) of the {len(good)} scale(s) within the "
        f"margins that keep {gain_kept:.0%} of the largest gain ({gain * 100:+.1f} of {top * 100:+.1f} points)"
    )


def choose_among(
    reports: Mapping[str, EvalReport],
    scales: Mapping[str, float],
    policy: GateSection,
    objective: Objective,
    gain_kept: float,
    selected_on: Mapping[str, Sequence[str]],
) -> ScaleChoice:
    """Measure the candidates, mark the front and choose.

    Args:
        reports: candidate -> its report on the selection half.
        scales: candidate -> its scale.
        policy: the gate's margins, level and incident rule.
        objective: of the retrain.
        gain_kept: see `choose`.
        selected_on: suite -> digests of the items of the reports.

    Raises:
        EvaluationError: a score is missing.
    """
    points = mark_front([measure(name, scales[name], report, policy, objective) for name, report in reports.items()])
    chosen, reason = choose(points, gain_kept)
    digests = {name: tuple(items) for name, items in selected_on.items()}
    return ScaleChoice(points=points, chosen=chosen, reason=reason, gain_kept=gain_kept, selected_on=digests)
