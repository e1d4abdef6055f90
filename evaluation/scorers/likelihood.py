"""`likelihood`: how likely the model finds the reference answer, without writing one itself.

The score is exp(-nats per token), the geometric mean of the probabilities of the reference's tokens and its end of
turn: 1 is certain. The mean negative log-likelihood itself stands beside every score (`ItemScore.nll`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.scorers.base import Asks, Case, Score, Tools


@dataclass(frozen=True)
class LikelihoodScorer:
    """Needs one forward pass an item."""

    asks: Asks = "likelihood"
    threshold: float = 0.5
    reference_is_answer: bool = True
    judged: bool = False

    def problems(self, item: EvalItem) -> list[str]:
        return []

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        scores = []
        for case in cases:
            nll = case.output.nll
            if nll is None or not math.isfinite(nll):
                raise EvaluationError(
                    "a log-likelihood is not a number", where=case.where, expected="finite nats per token", found=nll
                )
            scores.append(Score(min(1.0, math.exp(-nll))))
        return scores


SCORER = LikelihoodScorer()
