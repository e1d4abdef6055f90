"""`similarity`: the answer means what the reference means, by sentence embeddings.

The score is the highest cosine with the reference or one of `choices`, no less than 0. Embeddings do not tell "within
30 days" from "within 45 days", nor "is" from "is not": where that matters, add an item with `contains`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.scorers.base import Asks, Case, Score, Tools


@dataclass(frozen=True)
class SimilarityScorer:
    """All texts of all cases are embedded together."""

    asks: Asks = "answer"
    threshold: float = 0.8
    reference_is_answer: bool = True
    judged: bool = False

    def problems(self, item: EvalItem) -> list[str]:
        return []

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        if tools.embed is None:
            raise EvaluationError(
                "scorer `similarity` needs an embedder", where=cases[0].where, fix="set model.embedder in the profile"
            )
        texts = {case.output.answer for case in cases}
        texts |= {text for case in cases for text in (case.item.reference, *case.item.choices)}
        order = sorted(texts)
        vectors = dict(zip(order, tools.embed(order), strict=True))
        scores = []
        for case in cases:
            mine = vectors[case.output.answer]
            best = max(float(mine @ vectors[text]) for text in (case.item.reference, *case.item.choices))
            if not math.isfinite(best):
                raise EvaluationError("an embedding is not a number", where=case.where, expected="a cosine", found=best)
            # An empty answer gets a vector too, and means nothing.
            scores.append(Score(min(1.0, max(0.0, best)) if case.output.answer.strip() else 0.0))
        return scores


SCORER = SimilarityScorer()
