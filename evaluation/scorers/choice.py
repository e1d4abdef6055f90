"""`choice`: of all choices the reference is the most likely one, per token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.scorers.base import Asks, Case, Score, Tools


def best_choice(nlls: Sequence[float], where: object = "choice") -> int:
    """Index of the lowest negative log-likelihood; the first of equals.

    Raises:
        EvaluationError: a value is NaN or infinite.
    """
    if not nlls or not all(math.isfinite(value) for value in nlls):
        raise EvaluationError(
            "a log-likelihood is not a number", where=where, expected="finite nats per token", found=list(nlls)
        )
    return min(range(len(nlls)), key=lambda i: nlls[i])


@dataclass(frozen=True)
class ChoiceScorer:
    """Scores likelihoods, not an answer."""

    asks: Asks = "choices"
    threshold: float = 1.0
    reference_is_answer: bool = True
    judged: bool = False

    def problems(self, item: EvalItem) -> list[str]:
        found = []
        if len(item.choices) < 2 or len(set(item.choices)) != len(item.choices):
            found.append("scorer `choice` needs two or more different choices")
        if item.reference not in item.choices:
            found.append("the reference must be one of the choices")
        if any(not choice.strip() for choice in item.choices):
            found.append("a choice is empty")
        return found

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        return [
            Score(float(c.item.choices[best_choice(c.output.choice_nlls, c.where)] == c.item.reference)) for c in cases
        ]


SCORER = ChoiceScorer()
