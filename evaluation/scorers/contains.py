"""`contains`: the reference, or another accepted answer, stands in the answer as whole words."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.scorers.base import TextScorer
from evaluation.scorers.text import empty_in_effect, normalise


def contains(answer: str, references: Sequence[str]) -> bool:
    """One of the references stands in the answer, not as a part of a longer word or number."""
    text = normalise(answer)
    for reference in references:
        wanted = normalise(reference)
        start = text.find(wanted)
        while wanted and start >= 0:
            end = start + len(wanted)
            open_left = start == 0 or not (wanted[0].isalnum() and text[start - 1].isalnum())
            open_right = end == len(text) or not (wanted[-1].isalnum() and text[end].isalnum())
            if open_left and open_right:
                return True
            start = text.find(wanted, start + 1)
    return False


SCORER = TextScorer(
    lambda item, answer: float(contains(answer, (item.reference, *item.choices))),
    lambda item: empty_in_effect(item.reference, *item.choices),
    reference_is_answer=True,
)
