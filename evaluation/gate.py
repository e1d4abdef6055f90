"""The gate: per-item results and a policy in, pass / block / inconclusive with reasons out. Pure.

Suites are told apart by name: `target` (what the retrain is for), `incidents` (a regression list), anything
else is an anchor suite (what must not be forgotten). All suites must pass (intersection-union: no correction of
alpha). Each is compared with the champion (margin m) and with the base (margin 2m), or two points creep away
each round; where the candidate must be better, it must be better than both.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from configs.errors import EvaluationError
from configs.schema import GateSection, SuiteRule
from data_contracts.digests import digest
from data_contracts.records import EvalReport, GateDecision, SuiteScores, SuiteVerdict, utc_now
from evaluation import statistics

TARGET = "target"
INCIDENTS = "incidents"
Objective = Literal["superiority", "non_inferiority"]
Against = Literal["champion", "base"]
Verdict = Literal["pass", "block", "inconclusive"]


def rule_for(suite: str, policy: GateSection) -> SuiteRule:
    """The rule a suite is judged by."""
    return {TARGET: policy.target, INCIDENTS: policy.incidents}.get(suite, policy.anchors)


def points(share: float) -> str:
    """A share as signed percentage points, for sentences."""
    return f"{share * 100:+.1f}"


def _paired(report: EvalReport, suite: str, against: Against) -> tuple[SuiteScores, SuiteScores]:
    by_model = report.scores[suite]
    for name in ("candidate", against):
        if name not in by_model:
            raise EvaluationError(
                "a suite has no scores for a model", where=suite, expected=name, found=", ".join(by_model) or "none"
            )
    reference, candidate = by_model[against], by_model["candidate"]
    if [i.item_id for i in reference.items] != [i.item_id for i in candidate.items]:
        raise EvaluationError(
            "the models were not scored on the same items",
            where=suite,
            expected=f"{len(reference.items)} items in the order of {against}",
            found=f"{len(candidate.items)} items",
            fix="run the evaluation again",
        )
    for scores in (reference, candidate):
        for item in scores.items:
            if item.score not in (0.0, 1.0):
                raise EvaluationError(
                    "a score is missing or not binary",
                    where=f"{suite}/{item.item_id}",
                    expected="0 or 1",
                    found=item.score,
                )
    return reference, candidate


def sized_suites(report: EvalReport, policy: GateSection, objective: Objective) -> list[str]:
    """Suites whose size matters: all but the regression list and the target when it must be better."""
    names = [name for name in report.scores if name != INCIDENTS]
    if objective == "superiority" and policy.target.kind == "superiority":
        names = [name for name in names if name != TARGET]
    return names


def _too_small(
    n: int, kind: Objective, rule: SuiteRule, margin: float, policy: GateSection, power: float
) -> str | None:
    """Decided from n and the policy alone, before any result is read: a sentence if the suite is too small."""
    discordance = policy.max_discordance if rule.max_discordance is None else rule.max_discordance
    if kind == "superiority":
        need = statistics.required_items_superiority(rule.min_gain, discordance, policy.alpha)
        if need is None or n < need:
            least = "no number of items" if need is None else f"{need} items"
            return (
                f"too small to decide: {n} items; a gain above {rule.min_gain * 100:g} points with {discordance:.0%} "
                f"of items changing needs {least}"
            )
        return None
    if margin <= 0.0:
        return "a margin of 0 points cannot be proved by any number of items"
    if statistics.non_inferiority_power(n, margin, discordance, policy.alpha) >= power:
        return None
    need = statistics.required_items(margin, discordance, policy.alpha, power)
    finest = statistics.smallest_margin(n, discordance, policy.alpha, power)
    return (
        f"too small to decide: {n} items; a margin of {margin * 100:g} points with {discordance:.0%} of items changing "
        f"needs {need} (or, with these {n}, a margin of {finest * 100:.1f} points)"
    )


def _non_inferiority(lower: float, upper: float, margin: float, small: str | None) -> tuple[Verdict, str]:
    bound = f"lower bound {points(lower)} points against a margin of -{margin * 100:g}"
    if upper < -margin:
        return "block", f"worse: the whole interval lies below the margin (upper bound {points(upper)} points)"
    if small is not None:
        return "inconclusive", small
    if lower > -margin:
        return "pass", f"no worse: {bound}"
    return "block", f"not shown to be no worse: {bound}"


def _superiority(lower: float, min_gain: float, small: str | None) -> tuple[Verdict, str]:
    if small is not None:
        return "inconclusive", small
    bound = f"lower bound of the gain {points(lower)} points, needed above {points(min_gain)}"
    return ("pass", f"better: {bound}") if lower > min_gain else ("block", f"not shown to be better: {bound}")


def _regression_list(lost: int, n: int, mean: float, rule: SuiteRule, against: Against) -> tuple[Verdict, str]:
    """Incidents are a list of things that must hold, not a sample: no size check."""
    passed = round(mean * n)
    if mean < rule.min_pass - 1e-9:
        return "block", f"passes {passed} of {n} required behaviours, needed {math.ceil(rule.min_pass * n - 1e-9)}"
    allowed = math.floor(rule.margin * n + 1e-9)
    if against == "champion" and lost > allowed:
        return "block", f"loses {lost} behaviour(s) the champion had (allowed {allowed})"
    return "pass", f"passes {passed} of {n} required behaviours and loses {lost}"


def judge(
    report: EvalReport, suite: str, against: Against, policy: GateSection, objective: Objective, power: float
) -> SuiteVerdict:
    """The finding on one suite against one reference model.

    Args:
        power: chance with which an unchanged candidate must be able to pass this suite (the size check).

    Raises:
        EvaluationError: a missing model, other items, or a score that is not 0 or 1.
    """
    rule = rule_for(suite, policy)
    reference, candidate = _paired(report, suite, against)
    n = len(candidate.items)
    kind: Objective = "non_inferiority"
    if suite == TARGET and rule.kind == "superiority" and objective == "superiority":
        kind = "superiority"
    margin = rule.margin * (2.0 if against == "base" else 1.0)
    small = None if suite == INCIDENTS else _too_small(n, kind, rule, margin, policy, power)
    pairs = [(r.score, c.score) for r, c in zip(reference.items, candidate.items, strict=True)]
    lost = sum(1 for r, c in pairs if r > c)
    gained = sum(1 for r, c in pairs if c > r)
    lower = statistics.score_lower(n, gained, lost, policy.alpha)
    upper = statistics.score_upper(n, gained, lost, policy.alpha)
    if suite == INCIDENTS:
        verdict, reason = _regression_list(lost, n, candidate.mean, rule, against)
    elif kind == "superiority":
        verdict, reason = _superiority(lower, rule.min_gain, small)
    else:
        verdict, reason = _non_inferiority(lower, upper, margin, small)
    if suite != INCIDENTS and candidate.mean < rule.min_pass - 1e-9:
        verdict, reason = "block", f"passes {candidate.mean:.0%} of items, the policy asks for {rule.min_pass:.0%}"
    return SuiteVerdict(
        suite=suite,
        against=against,
        kind=kind,
        n=n,
        reference_mean=reference.mean,
        candidate_mean=candidate.mean,
        difference=(gained - lost) / n,
        lower=lower,
        upper=upper,
        margin=rule.min_gain if kind == "superiority" else margin,
        lost=lost,
        gained=gained,
        verdict=verdict,
        reason=reason,
    )


def decide(
    report: EvalReport, policy: GateSection, objective: Objective, *, now: datetime | None = None
) -> GateDecision:
    """Judge a candidate.

    Args:
        report: per-item results; a suite without items counts as absent.
        policy: margins, levels and what inconclusive means.
        objective: `superiority` for a retrain caused by feedback, drift or an incident; `non_inferiority` for
            erasure and schedule (an erasure cannot be "better").
        now: time to write into the decision.

    Raises:
        EvaluationError: a score is missing; never a pass.
    """
    present = {name: by for name, by in report.scores.items() if any(scores.items for scores in by.values())}
    report = report.model_copy(update={"scores": present})
    sized = sized_suites(report, policy, objective)
    power = 1.0 - (1.0 - policy.power) / max(len(sized), 1)
    same = report.champion_digest == report.base_digest
    sides: tuple[Against, ...] = ("champion",) if same else ("champion", "base")
    verdicts = tuple(judge(report, suite, side, policy, objective, power) for suite in present for side in sides)
    worst_first = sorted(verdicts, key=lambda v: ("block", "inconclusive", "pass").index(v.verdict))
    reasons = [f"{v.suite} against the {v.against}: {v.reason}" for v in worst_first]
    missing = []
    if objective == "superiority" and TARGET not in present:
        missing.append("there is no target suite: nothing can show that the candidate is better")
    if not any(name not in (TARGET, INCIDENTS) for name in present):
        missing.append("there is no anchor suite: nothing can show that the candidate forgot nothing")
    verdict: Verdict = "pass"
    if any(v.verdict == "block" for v in verdicts):
        verdict = "block"
    elif missing or any(v.verdict == "inconclusive" for v in verdicts):
        verdict = "inconclusive" if policy.inconclusive_blocks else "pass"
        if not policy.inconclusive_blocks:
            reasons.append("the policy lets an inconclusive result pass")
    return GateDecision(
        verdict=verdict,
        objective=objective,
        suites=verdicts,
        reasons=tuple(missing + reasons),
        policy_digest=digest(policy),
        decided_at=now or utc_now(),
    )
