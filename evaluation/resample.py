"""How often would the gate have said the same? Items of real per-item results, drawn again with replacement. Pure.

Two models that were really trained give one decision; drawing their items again gives as many as one likes, with the
correlations within an item left as they are. (Efron, "Bootstrap methods: another look at the jackknife", Annals of
Statistics 7 (1979) 1-26.) What it cannot show is the variation from one training to the next: use several seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from configs.gate import GateSection
from data_contracts.records import EvalReport, SuiteScores
from evaluation.gate import decide, rule_for
from evaluation.pairs import Objective


@dataclass(frozen=True)
class Resampled:
    """Decisions over resampled items."""

    decisions: int
    verdicts: dict[str, int]
    """Verdict -> how often."""
    suites: dict[str, dict[str, int]]
    """Suite -> verdict -> how often, the worst over the reference models."""

    @property
    def stopped(self) -> float:
        """Share of decisions that would not have let the candidate pass."""
        return 1.0 - self.verdicts.get("pass", 0) / self.decisions


def _draw(report: EvalReport, policy: GateSection, random: Random, sizes: Mapping[str, int]) -> EvalReport:
    scores: dict[str, dict[str, SuiteScores]] = {}
    slices: dict[str, dict[str, str]] = {}
    for suite, by_model in report.scores.items():
        n = len(next(iter(by_model.values())).items)
        # A list of required behaviours is what it is: nothing to be drawn.
        listed = rule_for(suite, policy).kind == "list"
        drawn = list(range(n)) if listed else [random.randrange(n) for _ in range(sizes.get(suite, n))]
        scores[suite] = {
            model: of.model_copy(
                update={
                    "items": tuple(
                        of.items[i].model_copy(update={"item_id": f"{of.items[i].item_id}*{k}"})
                        for k, i in enumerate(drawn)
                    )
                }
            )
            for model, of in by_model.items()
        }
        known, ids = report.slices.get(suite, {}), [i.item_id for i in next(iter(by_model.values())).items]
        slices[suite] = {f"{ids[i]}*{k}": known[ids[i]] for k, i in enumerate(drawn) if ids[i] in known}
    return report.model_copy(update={"scores": scores, "slices": slices})


def resampled_decisions(
    report: EvalReport,
    policy: GateSection,
    objective: Objective,
    *,
    count: int = 200,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
) -> Resampled:
    """Decide on `count` resamplings of a report's items; every model keeps its own result on each drawn item.

    Args:
        sizes: suite -> items to draw, for what a suite of another size would decide; its own size where it says none.

    Raises:
        EvaluationError: a score is missing (see `evaluation.gate.decide`).
        ValueError: no decision asked for.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    random = Random(seed)
    verdicts: Counter[str] = Counter()
    suites: dict[str, Counter[str]] = {}
    order = ("block", "inconclusive", "pass", "shown")
    for _ in range(count):
        decision = decide(_draw(report, policy, random, sizes or {}), policy, objective)
        verdicts[decision.verdict] += 1
        for suite in report.scores:
            said = [v.verdict for v in decision.suites if v.suite == suite]
            if said:
                suites.setdefault(suite, Counter())[min(said, key=order.index)] += 1
    return Resampled(count, dict(verdicts), {name: dict(counts) for name, counts in suites.items()})
