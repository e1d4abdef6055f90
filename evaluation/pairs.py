"""Two models' scores on the same items, and the rule every non-inferiority test of the gate shares. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from configs.errors import EvaluationError
from configs.gate import SuiteRule
from data_contracts.records import Against, EvalReport, SuiteScores
from evaluation import statistics

Objective = Literal["superiority", "non_inferiority"]
Verdict = Literal["pass", "block", "inconclusive"]
Show = Callable[[float], str]


def points(share: float) -> str:
    """A share as signed percentage points, for sentences."""
    return f"{share * 100:+.1f} points"


def nats(value: float) -> str:
    """A change of log-likelihood, for sentences."""
    return f"{value:+.3f} nats per token"


def margin_against(rule: SuiteRule, against: Against) -> float:
    """The margin, doubled against the base and the best accepted version: or small losses add up round by round."""
    return rule.margin * slack(against)


def slack(against: Against) -> float:
    """By how much a margin is widened against a model."""
    return 1.0 if against == "champion" else 2.0


def paired(report: EvalReport, suite: str, against: Against) -> tuple[SuiteScores, SuiteScores]:
    """`(reference, candidate)` on one suite, checked to be the same items with a score of 0 or 1 each.

    Raises:
        EvaluationError: a missing model, other items, or a score that is not 0 or 1.
    """
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


def flips(reference: SuiteScores, candidate: SuiteScores) -> tuple[int, int]:
    """`(lost, gained)`: items 1 -> 0 and 0 -> 1."""
    pairs = [(r.score, c.score) for r, c in zip(reference.items, candidate.items, strict=True)]
    return sum(r > c for r, c in pairs), sum(c > r for r, c in pairs)


def sides(report: EvalReport, suite: str) -> tuple[Against, ...]:
    """The models a suite is compared with, each once: the champion, the base, the best accepted version."""
    found: list[Against] = ["champion"]
    if report.base_digest != report.champion_digest:
        found.append("base")
    if "best" in report.scores[suite] and report.best_digest not in (report.base_digest, report.champion_digest):
        found.append("best")
    return tuple(found)


def non_inferiority(
    lower: float, upper: float, margin: float, small: str | None, show: Show = points
) -> tuple[Verdict, str]:
    """The verdict on a paired difference and its bounds, with a sentence.

    Args:
        lower: one-sided lower bound of candidate - reference; `upper` the upper one.
        margin: what may be lost, above 0.
        small: why n cannot decide, found before any result was read; None if it can.
        show: how a difference is written.
    """
    bound = f"lower bound {show(lower)} against a margin of {show(-margin)}"
    if upper < -margin:
        return "block", f"worse: the whole interval lies below the margin (upper bound {show(upper)})"
    if small is not None:
        return "inconclusive", small
    if lower > -margin:
        return "pass", f"no worse: {bound}"
    return "block", f"not shown to be no worse: {bound}"


def too_small_for_shares(n: int, margin: float, discordance: float, alpha: float, power: float) -> str | None:
    """A sentence if n items cannot decide a margin; decided from n and the policy alone."""
    if margin <= 0.0:
        return "a margin of 0 points cannot be proved by any number of items"
    if statistics.non_inferiority_power(n, margin, discordance, alpha) >= power:
        return None
    need = statistics.required_items(margin, discordance, alpha, power)
    finest = statistics.smallest_margin(n, discordance, alpha, power)
    return (
        f"too small to decide: {n} items; a margin of {margin * 100:g} points with {discordance:.0%} of items changing "
        f"needs {need} (or, with these {n}, a margin of {finest * 100:.1f} points)"
    )
