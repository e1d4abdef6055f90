"""`lm_eval`: a task of lm-evaluation-harness says what the answer is worth, with its own filters and metric.

Items come from `tidemill suite new --lm-eval TASK`; the reference is JSON (`evaluation.lm_eval_tasks.KEYS`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.records import EvalItem
from evaluation.lm_eval_tasks import KEYS, rate_answers
from evaluation.scorers.base import Asks, Case, Score, Tools


@dataclass(frozen=True)
class LmEvalScorer:
    """Needs lm-eval (extra `lm-eval`) where answers are scored."""

    asks: Asks = "answer"
    threshold: float = 1.0
    reference_is_answer: bool = False
    judged: bool = False

    def problems(self, item: EvalItem) -> list[str]:
        try:
            told = json.loads(item.reference)
        except ValueError:
            told = None
        if isinstance(told, dict) and tuple(sorted(told)) == KEYS and isinstance(told["doc"], dict):
            return []
        return ["the reference of scorer `lm_eval` is made by `tidemill suite new --lm-eval TASK`"]

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        told = [(json.loads(case.item.reference), case.output.answer) for case in cases]
        return [Score(value) for value in rate_answers(told, lambda place: cases[place].where)]


SCORER = LmEvalScorer()
