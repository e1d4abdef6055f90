"""The gate: per-item results and a policy in, pass / block / inconclusive with reasons out. Pure.

Suites are told apart by name: `target` (what the retrain is for), `incidents` (a regression list), anything
else is an anchor suite (what must not be forgotten) unless the policy says otherwise (`gate.suites`). All tests must
pass (intersection-union: no correction of alpha). Each suite is compared with the champion (margin m), with the base
and with the best accepted version (margin 2m), or two points creep away each round; where the candidate must be better,
it must be better than champion and base.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal

from configs.gate import GateSection, SuiteRule
from data_contracts.digests import digest
from data_contracts.records import NAMES, Against, EvalReport, Finding, GateDecision, SuiteVerdict, utc_now
from evaluation import findings, slices, statistics
from evaluation.pairs import (
    Objective,
    Verdict,
    flips,
    margin_against,
    non_inferiority,
    paired,
    points,
    sides,
    too_small_for_shares,
)

TARGET = "target"
INCIDENTS = "incidents"
PROBES = "probes"
FRAGILITY = "fragility"
NO_ANCHORS = (TARGET, INCIDENTS, PROBES, FRAGILITY)
"""Suites that cannot show that nothing was forgotten."""
BUILT_IN = {PROBES: SuiteRule(kind="list", margin=0.0), FRAGILITY: SuiteRule(kind="shown")}
"""Rules of suites made by Tidemill that the policy does not name."""


def rule_for(suite: str, policy: GateSection) -> SuiteRule:
    """The rule a suite is judged by."""
    own = {TARGET: policy.target, INCIDENTS: policy.incidents.model_copy(update={"kind": "list"})}
    return own.get(suite) or policy.suites.get(suite) or BUILT_IN.get(suite) or policy.anchors


def objective_for(causes: Iterable[str]) -> Objective:
    """What a retrain has to show, from the kinds of its causes.

    Feedback, drift, an incident or a person ask for something better. An erasure or the schedule does not, and of
    several causes an erasure decides: what it takes out must not be held in service for want of a gain.
    """
    kinds = set(causes)
    return "non_inferiority" if "erasure" in kinds or kinds <= {"erasure", "schedule"} else "superiority"


def kind_for(suite: str, policy: GateSection, objective: Objective, against: Against = "champion") -> Objective:
    """Whether a suite must be better or no worse. Nobody must beat a version that no longer serves."""
    wants = rule_for(suite, policy).kind == "superiority" and objective == "superiority"
    return "superiority" if wants and against != "best" else "non_inferiority"


def planned_tests(report: EvalReport, policy: GateSection, objective: Objective) -> int:
    """How many tests an unchanged candidate must pass, counted before any result is read.

    A regression list and a suite that must be better are none: the one has no size, the other no chance to pass.
    """
    count = 0
    for suite in report.scores:
        rule = rule_for(suite, policy)
        if rule.kind in ("list", "shown"):
            continue
        count += kind_for(suite, policy, objective) == "non_inferiority"
        count += (rule.nll_margin is not None) + (rule.max_nfr is not None) + len(rule.slices)
    return count


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
    return too_small_for_shares(n, margin, discordance, policy.alpha, power)


def _superiority(lower: float, min_gain: float, small: str | None) -> tuple[Verdict, str]:
    if small is not None:
        return "inconclusive", small
    bound = f"lower bound of the gain {points(lower)}, needed above {points(min_gain)}"
    return ("pass", f"better: {bound}") if lower > min_gain else ("block", f"not shown to be better: {bound}")


def _regression_list(lost: int, n: int, mean: float, rule: SuiteRule, counts_loss: bool) -> tuple[Verdict, str]:
    """A list of things that must hold, not a sample: no size check."""
    passed = round(mean * n)
    if mean < rule.min_pass - 1e-9:
        return "block", f"passes {passed} of {n} required behaviours, needed {math.ceil(rule.min_pass * n - 1e-9)}"
    allowed = math.floor(rule.margin * n + 1e-9)
    if counts_loss and lost > allowed:
        return "block", f"loses {lost} behaviour(s) the reference had (allowed {allowed})"
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
    reference, candidate = paired(report, suite, against)
    n = len(candidate.items)
    kind = kind_for(suite, policy, objective, against)
    margin = margin_against(rule, against)
    lost, gained = flips(reference, candidate)
    lower = statistics.score_lower(n, gained, lost, policy.alpha)
    upper = statistics.score_upper(n, gained, lost, policy.alpha)
    verdict: Literal["pass", "block", "inconclusive", "shown"]
    if rule.kind == "shown":
        verdict, reason = "shown", f"{lost} lost, {gained} gained of {n}"
    elif rule.kind == "list":
        # What the champion of the day cannot do is no loss against an older model, for incidents; a probe is.
        counts_loss = suite != INCIDENTS or against == "champion"
        verdict, reason = _regression_list(lost, n, candidate.mean, rule, counts_loss)
    else:
        small = _too_small(n, kind, rule, margin, policy, power)
        if kind == "superiority":
            verdict, reason = _superiority(lower, rule.min_gain, small)
        else:
            verdict, reason = non_inferiority(lower, upper, margin, small)
    if rule.kind not in ("list", "shown") and candidate.mean < rule.min_pass - 1e-9:
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
        listed=rule.kind == "list",
        lost=lost,
        gained=gained,
        verdict=verdict,
        reason=reason,
    )


def further(report: EvalReport, policy: GateSection, power: float) -> tuple[Finding, ...]:
    """Likelihoods, negative flips and slices of every suite that is no list.

    Raises:
        EvaluationError: a likelihood that is missing or not a number.
    """
    found: list[Finding] = []
    only_shown: list[Finding] = []
    for suite in report.scores:
        rule, slice_of = rule_for(suite, policy), report.slices.get(suite, {})
        if suite == FRAGILITY:
            found.append(findings.fragility(paired(report, suite, "champion"), policy.alpha))
            continue
        if rule.kind == "list":
            continue
        if rule.kind == "shown":
            rule = SuiteRule(kind="shown")  # whatever else the rule says is not judged either
        for side in sides(report, suite):
            pair = paired(report, suite, side)
            change = findings.likelihood(pair, side, rule, policy, power)
            found += [change] if change is not None else []
            if side == "champion":
                found.append(findings.negative_flips(pair, side, rule, policy, power))
                only_shown += slices.shown(pair, slice_of, rule, policy.alpha)
            found += slices.judged(pair, side, slice_of, rule, policy, power)
    return (*found, *slices.warned(only_shown, policy.alpha))


def _absent(present: Collection[str], policy: GateSection, objective: Objective) -> list[str]:
    """What the verdict lacks."""
    # Suites made by Tidemill are there when they are switched on and there is something to ask.
    named = [name for name in policy.suites if name not in BUILT_IN]
    missing = [f"the policy names the suite {name}, which was not run" for name in named if name not in present]
    if objective == "superiority" and TARGET not in present:
        missing.append("there is no target suite: nothing can show that the candidate is better")
    if not any(name not in NO_ANCHORS and rule_for(name, policy).kind != "shown" for name in present):
        missing.append("there is no anchor suite: nothing can show that the candidate forgot nothing")
    return missing


def _sentences(verdicts: Sequence[SuiteVerdict], found: Sequence[Finding]) -> list[str]:
    """One for each thing that decides, the worst first."""
    all_of: list[tuple[str, str]] = []
    all_of += [(v.verdict, f"{v.suite} against the {NAMES[v.against]}: {v.reason}") for v in verdicts]
    all_of += [(f.verdict, f"{f.title}: {f.reason}") for f in found if f.limit is not None]
    order = ("block", "inconclusive", "pass", "shown")
    return [text for verdict, text in sorted(all_of, key=lambda pair: order.index(pair[0])) if verdict != "shown"]


def decide(
    report: EvalReport, policy: GateSection, objective: Objective, *, now: datetime | None = None
) -> GateDecision:
    """Judge a candidate.

    Args:
        report: per-item results; a suite without items counts as absent.
        policy: margins, levels and what inconclusive means.
        objective: what the retrain has to show (`objective_for`).
        now: time to write into the decision.

    Raises:
        EvaluationError: a score is missing; never a pass.
    """
    present = {name: by for name, by in report.scores.items() if any(scores.items for scores in by.values())}
    report = report.model_copy(update={"scores": present})
    power = 1.0 - (1.0 - policy.power) / max(planned_tests(report, policy, objective), 1)
    verdicts = tuple(
        judge(report, suite, side, policy, objective, power) for suite in present for side in sides(report, suite)
    )
    found = further(report, policy, power)
    reasons = _sentences(verdicts, found)
    missing = _absent(present, policy, objective)
    said = {v.verdict for v in verdicts} | {f.verdict for f in found}
    verdict: Verdict = "pass"
    if "block" in said:
        verdict = "block"
    elif missing or "inconclusive" in said:
        verdict = "inconclusive" if policy.inconclusive_blocks else "pass"
        if not policy.inconclusive_blocks:
            reasons.append("the policy lets an inconclusive result pass")
    return GateDecision(
        verdict=verdict,
        objective=objective,
        suites=verdicts,
        reasons=tuple(missing + reasons),
        findings=found,
        policy_digest=digest(policy),
        decided_at=now or utc_now(),
    )
