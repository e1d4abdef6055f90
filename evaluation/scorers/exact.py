"""`exact`: the answer is the reference, after normalising."""

from __future__ import annotations

from evaluation.scorers.base import TextScorer
from evaluation.scorers.text import empty_in_effect, normalise


def exact(answer: str, reference: str) -> bool:
    """Equal after `normalise`."""
    return normalise(answer) == normalise(reference)


SCORER = TextScorer(
    lambda item, answer: float(exact(answer, item.reference)),
    lambda item: empty_in_effect(item.reference),
    reference_is_answer=True,
)
