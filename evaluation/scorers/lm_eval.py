"""`lm_eval`: a task of lm-evaluation-harness says what the answer is worth, with its own filters and metric.

Items come from `tidemill suite new --lm-eval TASK`; the reference is JSON (`evaluation.lm_eval_tasks.KEYS`). Needs
lm-eval (extra `lm-eval`) where answers are scored.
"""

from __future__ import annotations

import json

from data_contracts.records import EvalItem
from evaluation.lm_eval_tasks import KEYS, rate_answer
from evaluation.scorers.base import TextScorer


def _problems(item: EvalItem) -> list[str]:
    try:
        told = json.loads(item.reference)
    except ValueError:
        told = None
    if isinstance(told, dict) and tuple(sorted(told)) == KEYS and isinstance(told["doc"], dict):
        return []
    return ["the reference of scorer `lm_eval` is made by `tidemill suite new --lm-eval TASK`"]


SCORER = TextScorer(
    lambda item, answer: rate_answer(json.loads(item.reference), answer, f"{item.suite}/{item.id}"), _problems
)
