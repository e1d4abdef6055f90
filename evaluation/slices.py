"""A suite's parts: by intent, language or customer segment. Pure.

An item's `slice` names one part, or several separated by `|`. A part that the policy names must be no worse by itself,
with the same size check as a suite; any other is shown, with a warning if it lost significantly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from configs.gate import GateSection, SuiteRule
from data_contracts.records import Against, Finding, SuiteScores
from evaluation import statistics
from evaluation.pairs import non_inferiority, points, slack, too_small_for_shares


def names_of(text: str) -> tuple[str, ...]:
    """The slices an item belongs to."""
    return tuple(dict.fromkeys(part for name in text.split("|") if (part := name.strip())))


def members(item_ids: Iterable[str], slice_of: dict[str, str]) -> dict[str, list[int]]:
    """Slice -> positions of its items, in the order of first sight."""
    found: dict[str, list[int]] = {}
    for position, item in enumerate(item_ids if slice_of else ()):
        for name in names_of(slice_of.get(item, "")):
            found.setdefault(name, []).append(position)
    return found


def _finding(
    pair: tuple[SuiteScores, SuiteScores], against: Against, name: str, chosen: Sequence[int], alpha: float
) -> Finding:
    """A slice as it is shown; with no item it is the widest interval there is."""
    scores = [(pair[0].items[i].score, pair[1].items[i].score) for i in chosen]
    lost, gained, n = sum(r > c for r, c in scores), sum(c > r for r, c in scores), len(scores)
    return Finding(
        suite=pair[1].suite,
        against=against,
        measure="slice",
        slice=name,
        n=n,
        value=(gained - lost) / n if n else 0.0,
        lower=statistics.score_lower(n, gained, lost, alpha) if n else -1.0,
        upper=statistics.score_upper(n, gained, lost, alpha) if n else 1.0,
        lost=lost,
        gained=gained,
        verdict="shown",
        reason=f"{lost} lost, {gained} gained of {n}",
    )


def judged(
    pair: tuple[SuiteScores, SuiteScores],
    against: Against,
    slice_of: dict[str, str],
    rule: SuiteRule,
    policy: GateSection,
    power: float,
) -> list[Finding]:
    """The slices the policy names, each against its margin (twice that against the base and the best version)."""
    positions = members((i.item_id for i in pair[1].items), slice_of)
    discordance = policy.max_discordance if rule.max_discordance is None else rule.max_discordance
    found = []
    for name, margin in rule.slices.items():
        shown = _finding(pair, against, name, positions.get(name, ()), policy.alpha)
        limit = margin * slack(against)
        small = too_small_for_shares(shown.n, limit, discordance, policy.alpha, power)
        verdict, reason = non_inferiority(shown.lower, shown.upper, limit, small, points)
        if shown.n == 0:
            verdict, reason = "inconclusive", "no item of the suite is in this slice"
        found.append(shown.model_copy(update={"limit": limit, "verdict": verdict, "reason": reason}))
    return found


def shown(
    pair: tuple[SuiteScores, SuiteScores], slice_of: dict[str, str], rule: SuiteRule, alpha: float
) -> list[Finding]:
    """All other slices, against the champion."""
    positions = members((i.item_id for i in pair[1].items), slice_of)
    return [_finding(pair, "champion", name, at, alpha) for name, at in positions.items() if name not in rule.slices]


def warned(found: Sequence[Finding], alpha: float) -> list[Finding]:
    """Shown slices, those that lost significantly as warnings: sign tests, Holm's correction over all of them."""
    p_values = [statistics.loss_p(f.gained, f.lost) for f in found]
    return [
        finding
        if not significant
        else finding.model_copy(
            update={
                "verdict": "warning",
                "reason": f"lost significantly: {finding.reason} (p = {p:.2g}, Holm over {len(found)} slices)",
            }
        )
        for finding, p, significant in zip(found, p_values, statistics.holm(p_values, alpha), strict=True)
    ]
