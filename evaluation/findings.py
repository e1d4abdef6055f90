"""What scores of 0 and 1 do not show: how likely the reference answers still are, and how much was newly broken. Pure.

Both are found on every suite; the policy says where they decide (`nll_margin`, `max_nfr`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from configs.errors import EvaluationError
from configs.gate import GateSection, SuiteRule
from data_contracts.records import Against, Finding, ItemScore, SuiteScores
from evaluation import statistics
from evaluation.pairs import Verdict, flips, nats, non_inferiority, slack


def likelihood_changes(suite: str, reference: Sequence[ItemScore], candidate: Sequence[ItemScore]) -> list[float]:
    """Candidate minus reference, per item with a reference answer, in nats per token (above 0: more likely).

    Raises:
        EvaluationError: a likelihood that only one model has, or one that is not a number.
    """
    changes = []
    for before, after in zip(reference, candidate, strict=True):
        if before.nll is None and after.nll is None:
            continue
        for item in (before, after):
            if item.nll is None or not math.isfinite(item.nll):
                raise EvaluationError(
                    "a log-likelihood is missing or not a number",
                    where=f"{suite}/{item.item_id}",
                    expected="nats per token of every model compared",
                    found=item.nll,
                    fix="run the evaluation again",
                )
        changes.append(float(before.nll or 0.0) - float(after.nll or 0.0))
    return changes


def likelihood(
    pair: tuple[SuiteScores, SuiteScores], against: Against, rule: SuiteRule, policy: GateSection, power: float
) -> Finding | None:
    """The paired t finding on a suite; None where nothing can be shown and nothing is to be judged.

    Args:
        pair: reference and candidate, checked (`evaluation.pairs.paired`).
        power: chance with which an unchanged candidate must be able to pass.

    Raises:
        EvaluationError: see `likelihood_changes`.
    """
    reference, candidate = pair
    changes = likelihood_changes(candidate.suite, reference.items, candidate.items)
    n, margin = len(changes), rule.nll_margin
    if margin is None and n < 2:
        return None
    mean, lower, upper = statistics.paired_t_bounds(changes, policy.alpha) if n >= 2 else (0.0, 0.0, 0.0)
    rose, fell = sum(change > 0 for change in changes), sum(change < 0 for change in changes)
    shown = Finding(
        suite=candidate.suite,
        against=against,
        measure="log_likelihood",
        n=n,
        value=mean,
        lower=lower,
        upper=upper,
        lost=fell,
        gained=rose,
        verdict="shown",
        reason=f"mean change {nats(mean)}",
    )
    if margin is None:
        return shown
    limit = margin * slack(against)
    small = _too_few_likelihoods(n, limit, rule.nll_sd, policy.alpha, power)
    verdict, reason = non_inferiority(lower, upper, limit, small, nats)
    return shown.model_copy(update={"limit": limit, "verdict": verdict, "reason": reason})


def _too_few_likelihoods(n: int, margin: float, sd: float, alpha: float, power: float) -> str | None:
    """Decided from n and the policy alone: a sentence if the items cannot decide the margin."""
    if statistics.paired_t_power(n, margin, sd, alpha) >= power:
        return None
    need = statistics.required_items_paired_t(margin, sd, alpha, power)
    return (
        f"too small to decide: {n} items with a reference answer; a margin of {margin:g} nats per token with a "
        f"standard deviation of {sd:g} needs {need}"
    )


def negative_flips(
    pair: tuple[SuiteScores, SuiteScores], against: Against, rule: SuiteRule, policy: GateSection, power: float
) -> Finding:
    """The negative flip rate with exact bounds: what the reference had right and the candidate has wrong, of all items.

    S. Yan et al., "Positive-Congruent Training: Towards Regression-Free Model Updates", CVPR 2021 (arXiv 2011.09161).

    Args:
        pair, power: as of `likelihood`.
    """
    n = len(pair[1].items)
    lost, gained = flips(*pair)
    shown = Finding(
        suite=pair[1].suite,
        against=against,
        measure="negative_flips",
        n=n,
        value=lost / n,
        lower=statistics.share_lower(lost, n, policy.alpha),
        upper=statistics.share_upper(lost, n, policy.alpha),
        lost=lost,
        gained=gained,
        verdict="shown",
        reason=f"{lost} of {n} items newly wrong",
    )
    if rule.max_nfr is None:
        return shown
    verdict, reason = _flip_verdict(shown, rule.max_nfr, rule, policy, power)
    return shown.model_copy(update={"limit": rule.max_nfr, "verdict": verdict, "reason": reason})


def _flip_verdict(
    found: Finding, limit: float, rule: SuiteRule, policy: GateSection, power: float
) -> tuple[Verdict, str]:
    reason = f"{found.reason}, upper bound {found.upper:.1%}, allowed below {limit:.1%}"
    if found.lower > limit:
        return "block", reason
    # Of an unchanged candidate half of the items expected to change are lost.
    expected = (policy.max_discordance if rule.max_discordance is None else rule.max_discordance) / 2.0
    if statistics.share_below_power(found.n, limit, expected, policy.alpha) < power:
        return "inconclusive", (
            f"too small to decide: {found.n} items; a negative flip rate below {limit:.1%} with {expected:.1%} "
            "expected needs more of them, or a larger limit"
        )
    return ("pass" if found.upper < limit else "block"), reason


def fragility(pair: tuple[SuiteScores, SuiteScores], alpha: float) -> Finding:
    """The share of the candidate's items whose verdict flips with the wording, with exact bounds.

    Args:
        pair: champion and candidate on the folded suite (`evaluation.fragility.fold`): 1 = stable.
    """
    n = len(pair[1].items)
    before, after = (sum(item.score == 0.0 for item in of.items) for of in pair)
    lost, gained = flips(*pair)
    return Finding(
        suite=pair[1].suite,
        against="champion",
        measure="fragility",
        n=n,
        value=after / n,
        lower=statistics.share_lower(after, n, alpha),
        upper=statistics.share_upper(after, n, alpha),
        lost=lost,
        gained=gained,
        verdict="shown",
        reason=f"the verdict of {after} of {n} items hangs on the wording, of the champion's {before}",
    )
