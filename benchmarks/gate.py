"""Is the gate right as often as it claims? Synthetic suites at the sizes it recommends, judged by the real `decide`.

    python benchmarks/gate.py [--runs 2000] [--draws 8000]

- `type1`: a candidate truly worse by exactly the margin passes; the level is .05. Pooled over the configurations, the
  worst one beside it; `draws` suites each, because 2,000 have a Monte Carlo error (.005) as large as what is measured.
- `power`: an unchanged candidate passes all S suites, each of the size recommended for S, in `runs` whole decisions.
- `inconclusive_when_small`: an unchanged candidate on suites below that size is never passed, and inconclusive unless
  the harm seen is evident by itself (the whole interval beyond the margin).
- likelihoods (paired t) and the negative flip rate, the same way.
- naive rules on the very same counts: paired bootstrap, "no significant difference", "mean not lower".

Every item of a synthetic suite flips by itself: what items have in common (one thing asked in ten ways) is not in here;
`evaluation.resample` looks at real results. Progress goes to stderr, the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from configs.gate import GateSection, SuiteRule
from data_contracts.records import EvalReport, ItemScore, SuiteScores
from evaluation import statistics
from evaluation.gate import decide
from evaluation.pairs import Verdict

ALPHA, POWER = 0.05, 0.95
AT_SCIENCE = (0.02, 0.02, 310)
"""(margin, share of items that change, n): few changes and a fine margin, where rules differ most."""
GRID = [
    (0.02, 0.02), (0.02, 0.05), (0.05, 0.05), (0.05, 0.10), (0.05, 0.25), (0.10, 0.10), (0.10, 0.15), (0.10, 0.25),
    (0.15, 0.15), (0.15, 0.25),
]  # fmt: skip
"""(margin, share of items that change)."""
SUITES = (1, 3, 6)
LARGEST = 4_000
WRONG = tuple(ItemScore(item_id=str(i), score=0.0, answer="") for i in range(LARGEST))
LIKELY = tuple(ItemScore(item_id=str(i), score=1.0, answer="", nll=1.0) for i in range(LARGEST))
RIGHT = tuple(ItemScore(item_id=str(i), score=1.0, answer="") for i in range(LARGEST))


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def error_of(share: float, n: int) -> float:
    """Monte Carlo standard error of a share."""
    return math.sqrt(share * (1.0 - share) / n)


def suite_of(name: str, n: int, gained: int, lost: int) -> dict[str, SuiteScores]:
    """Reference and candidate with these flips; which items they are does not matter."""
    right = lost + (n - lost - gained) * 6 // 10
    before = RIGHT[:right] + WRONG[right:n]
    after = WRONG[:lost] + RIGHT[lost : right + gained] + WRONG[right + gained : n]
    reference = SuiteScores.model_construct(suite=name, suite_digest="s", model_digest="b", items=before)
    candidate = SuiteScores.model_construct(suite=name, suite_digest="s", model_digest="c", items=after)
    return {"base": reference, "champion": reference, "candidate": candidate}


def report_of(suites: dict[str, dict[str, SuiteScores]]) -> EvalReport:
    """A first round: the champion is the base."""
    return EvalReport.model_construct(
        candidate_digest="c", champion_digest="b", base_digest="b", dataset_digest="", scores=suites, slices={},
        best_digest="", seconds=0.0,
    )  # fmt: skip


def policy_of(margin: float, discordance: float, **rule: float) -> GateSection:
    """The policy of the anchors alone."""
    anchors = SuiteRule(kind="non_inferiority", margin=margin, **rule)  # type: ignore[arg-type]
    return GateSection(anchors=anchors, max_discordance=discordance, power=POWER, alpha=ALPHA)


def verdict_on(counts: Iterable[tuple[int, int, int]], policy: GateSection) -> Verdict:
    """The real decision over suites with these (n, gained, lost)."""
    suites = {f"anchors-{i}": suite_of(f"anchors-{i}", *c) for i, c in enumerate(counts)}
    return decide(report_of(suites), policy, "non_inferiority").verdict


def draw(
    rng: np.random.Generator, n: int, difference: float, discordance: float, runs: int
) -> Counter[tuple[int, int]]:
    """(gained, lost) of suites whose true difference and share of changing items are given, with how often."""
    gain, lose = (discordance + difference) / 2.0, (discordance - difference) / 2.0
    drawn = rng.multinomial(n, [gain, lose, 1.0 - gain - lose], size=runs)
    return Counter((int(g), int(lost)) for g, lost, _ in drawn)


def passing(counts: Counter[tuple[int, int]], rule: Callable[[int, int], bool]) -> float:
    """Share of suites a rule passes."""
    return sum(often for (gained, lost), often in counts.items() if rule(gained, lost)) / counts.total()


# --- naive rules, to show what they do ---------------------------------------------------------------


def naive_rules(n: int, margin: float, rng: np.random.Generator) -> dict[str, Callable[[int, int], bool]]:
    """Name -> passes a suite of n items with (gained, lost)?"""

    def bootstrap(gained: int, lost: int) -> bool:
        """Percentile bootstrap over items: the 5 % quantile of the resampled difference lies above the margin."""
        drawn = rng.multinomial(n, [gained / n, lost / n, (n - gained - lost) / n], size=1000)
        return bool(np.quantile((drawn[:, 0] - drawn[:, 1]) / n, ALPHA) > -margin)

    def no_difference(gained: int, lost: int) -> bool:
        """McNemar's exact two-sided test does not reject: "no significant difference"."""
        return min(1.0, 2.0 * statistics.loss_p(min(gained, lost), max(gained, lost))) >= ALPHA

    return {
        "bootstrap": bootstrap,
        "no_significant_difference": no_difference,
        "mean_not_lower": lambda g, lost: g >= lost,
    }


# --- scores of 0 and 1 --------------------------------------------------------------------------------


def one_suite(
    rng: np.random.Generator, margin: float, discordance: float, n: int, draws: int, power: float = POWER
) -> dict[str, float]:
    """Type I and power of the gate and of the naive rules on the same suites."""
    policy = policy_of(margin, discordance).model_copy(update={"power": power})

    def real(gained: int, lost: int) -> bool:
        return verdict_on([(n, gained, lost)], policy) == "pass"

    rules = {"gate": real, **naive_rules(n, margin, rng)}
    at_margin, unchanged = (draw(rng, n, true, discordance, draws) for true in (-margin, 0.0))
    row: dict[str, float] = {"margin": margin, "discordance": discordance, "n": n}
    for name, rule in rules.items():
        row |= {f"{name}_type1": passing(at_margin, rule), f"{name}_power": passing(unchanged, rule)}
    say(
        f"margin {margin * 100:4.1f} d {discordance:.2f} n {n:5d}: type I {row['gate_type1']:.4f} "
        f"± {1.96 * error_of(row['gate_type1'], draws):.4f}, power {row['gate_power']:.4f}; type I / power of "
        + ", ".join(f"{k} {row[f'{k}_type1']:.3f} / {row[f'{k}_power']:.3f}" for k in rules if k != "gate")
    )
    return row


def binary_grid(rng: np.random.Generator, draws: int) -> list[dict[str, float]]:
    """One suite of every kind, at the size recommended where there are six."""
    return [
        one_suite(rng, m, d, statistics.required_items(m, d, ALPHA, 1.0 - (1.0 - POWER) / max(SUITES)), draws)
        for m, d in GRID
    ]


def whole_decisions(rng: np.random.Generator, runs: int) -> list[dict[str, float]]:
    """S suites at the size recommended for S: all unchanged, and one of them at the margin."""
    rows = []
    for suites, margin, discordance in ((1, 0.10, 0.15), (3, 0.10, 0.15), (6, 0.10, 0.15), (3, 0.05, 0.10)):
        policy = policy_of(margin, discordance)
        n = statistics.required_items(margin, discordance, ALPHA, 1.0 - (1.0 - POWER) / suites)
        half, low = discordance / 2.0, (discordance - margin) / 2.0
        same = rng.multinomial(n, [half, half, 1.0 - discordance], size=(runs, suites))[:, :, :2]
        worse = rng.multinomial(n, [low, low + margin, 1.0 - discordance], size=runs)[:, :2]
        harmed = same.copy()
        harmed[:, 0] = worse
        power, type1 = (
            sum(verdict_on([(n, int(g), int(x)) for g, x in run], policy) == "pass" for run in drawn) / runs
            for drawn in (same, harmed)
        )
        rows.append({"suites": suites, "margin": margin, "discordance": discordance, "n": n,
                     "power": power, "type1": type1})  # fmt: skip
        say(
            f"{suites} suites of {n}, margin {margin * 100:g}: an unchanged candidate passes {power:.4f} "
            f"± {1.96 * error_of(power, runs):.4f} (designed {POWER}), one suite at the margin {type1:.4f}"
        )
    return rows


def small_suites(rng: np.random.Generator, runs: int) -> dict[str, float]:
    """Suites below the recommended size: what becomes of an unchanged candidate, by the gate and by the naive rules."""
    total = evident = inconclusive = passed = 0
    naive: Counter[str] = Counter()
    for margin, discordance in GRID:
        need = statistics.required_items(margin, discordance, ALPHA, POWER)
        policy = policy_of(margin, discordance)
        for n in (need - 1, max(need // 4, 5)):
            rules = naive_rules(n, margin, rng)
            for (gained, lost), often in draw(rng, n, 0.0, discordance, runs).items():
                total += often
                verdict = verdict_on([(n, gained, lost)], policy)
                evident += often * (verdict == "block")
                inconclusive += often * (verdict == "inconclusive")
                passed += often * (verdict == "pass")
                for name, rule in rules.items():
                    naive[name] += often * rule(gained, lost)
    return {
        "inconclusive_when_small": inconclusive / (total - evident),
        "small_passed": passed / total,
        "small_evident_harm": evident / total,
        **{f"{name}_small_passed": count / total for name, count in naive.items()},
    }


# --- likelihoods and negative flips -------------------------------------------------------------------


def likelihood_passes(changes: np.ndarray, policy: GateSection) -> bool:
    """The real decision on one suite whose scores do not change and whose likelihoods change as given."""
    n = len(changes)
    before = LIKELY[:n]
    after = tuple(
        ItemScore.model_construct(item_id=i.item_id, score=1.0, answer="", nll=1.0 - change)
        for i, change in zip(before, changes.tolist(), strict=True)
    )
    reference = SuiteScores.model_construct(suite="own", suite_digest="s", model_digest="b", items=before)
    candidate = SuiteScores.model_construct(suite="own", suite_digest="s", model_digest="c", items=after)
    report = report_of({"own": {"base": reference, "champion": reference, "candidate": candidate}})
    return decide(report, policy, "non_inferiority").verdict == "pass"


def likelihoods(rng: np.random.Generator, runs: int) -> list[dict[str, float | str]]:
    """Paired t: at the margin and unchanged, for changes that are normal, heavy-tailed and skewed either way."""
    shapes: dict[str, Callable[[int], np.ndarray]] = {
        "normal": lambda n: rng.normal(size=n),
        "t5": lambda n: rng.standard_t(5, size=n) / math.sqrt(5 / 3),
        "few fall much": lambda n: 1.0 - rng.exponential(size=n),
        "few rise much": lambda n: rng.exponential(size=n) - 1.0,
    }
    rows: list[dict[str, float | str]] = []
    for margin, sd in ((0.1, 0.3), (0.2, 0.6), (0.3, 1.0)):
        # The scores do not flip: a margin of 30 points is decided by any such n and leaves the verdict to the t test.
        policy = policy_of(0.3, 0.05, nll_margin=margin, nll_sd=sd)
        n = statistics.required_items_paired_t(margin, sd, ALPHA, 1.0 - (1.0 - POWER) / 2)
        for name, shape in shapes.items():
            if name != "normal" and margin != 0.2:
                continue
            type1, power = (
                sum(likelihood_passes(sd * shape(n) + true, policy) for _ in range(runs)) / runs
                for true in (-margin, 0.0)
            )
            rows.append({"shape": name, "margin": margin, "sd": sd, "n": n, "type1": type1, "power": power})
            say(f"likelihood, {name}, margin {margin} sd {sd} n {n}: type I {type1:.4f}, power {power:.4f}")
    return rows


def negative_flips(rng: np.random.Generator, runs: int) -> list[dict[str, float]]:
    """A true negative flip rate at the limit passes at most as often as alpha says: the bound is exact."""
    rows = []
    for limit, n in ((0.05, 300), (0.10, 130), (0.10, 600)):
        policy = policy_of(0.9, 0.01, max_nfr=limit)
        counts = Counter((0, int(x)) for x in rng.binomial(n, limit, size=runs))

        def real(gained: int, lost: int, n: int = n, policy: GateSection = policy) -> bool:
            return verdict_on([(n, gained, lost)], policy) == "pass"

        rows.append({"limit": limit, "n": n, "type1": passing(counts, real)})
        say(f"negative flips, limit {limit:.0%} n {n}: type I {rows[-1]['type1']:.4f}")
    return rows


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2_000, help="whole decisions a configuration")
    parser.add_argument("--draws", type=int, default=8_000, help="single suites a configuration")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started, rng = time.monotonic(), np.random.default_rng(args.seed)
    grid = binary_grid(rng, args.draws)
    fine = one_suite(rng, *AT_SCIENCE, args.draws, power=0.51)
    whole = whole_decisions(rng, args.runs)
    small = small_suites(rng, args.runs // 2)
    nll = likelihoods(rng, args.runs)
    flips = negative_flips(rng, args.draws)

    def mean(rows: list[dict[str, float]], key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    type1, power = mean(grid, "gate_type1"), mean(whole, "power")
    worst = max(grid, key=lambda row: row["gate_type1"])
    least = min(whole, key=lambda row: row["power"])
    figures = {
        "type1": round(type1, 4),
        "type1_error": round(error_of(type1, args.draws * len(grid)), 4),
        "type1_worst": round(worst["gate_type1"], 4),
        "type1_worst_at": {k: worst[k] for k in ("margin", "discordance", "n")},
        "type1_worst_error": round(error_of(worst["gate_type1"], args.draws), 4),
        "power": round(power, 4),
        "power_error": round(error_of(power, args.runs * len(whole)), 4),
        "power_least": round(least["power"], 4),
        "power_least_error": round(error_of(least["power"], args.runs), 4),
        "power_designed": POWER,
        "type1_whole": round(mean(whole, "type1"), 4),
        **{key: round(value, 4) for key, value in small.items()},
        "likelihood_type1": {str(r["shape"]): round(float(r["type1"]), 4) for r in nll if r["margin"] == 0.2},
        "likelihood_power_least": round(min(float(r["power"]) for r in nll), 4),
        "negative_flips_type1": round(max(row["type1"] for row in flips), 4),
        "naive_type1": {k: round(mean(grid, f"{k}_type1"), 4) for k in naive_rules(1, 0.1, rng)},
        "naive_power": {k: round(mean(grid, f"{k}_power"), 4) for k in naive_rules(1, 0.1, rng)},
        "n310_type1": {k: round(fine[f"{k}_type1"], 4) for k in ("gate", *naive_rules(1, 0.1, rng))},
        "runs": args.runs,
        "draws": args.draws,
        "wall_s": round(time.monotonic() - started, 1),
    }
    figures["ok"] = (
        type1 <= 0.055
        and power + 1.96 * figures["power_error"] >= POWER
        and small["inconclusive_when_small"] == 1.0
        and small["small_passed"] == 0.0
    )
    print(json.dumps(figures))
    sys.exit(0 if figures["ok"] else 1)


if __name__ == "__main__":
    main()
