"""`regex`: a pattern is found in the answer, within a bounded time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.records import EvalItem
from evaluation.patterns import search_all
from evaluation.scorers.base import Asks, Case, Score, Tools
from evaluation.scorers.json_schema import patterns_of


@dataclass(frozen=True)
class RegexScorer:
    """All cases in one child process."""

    asks: Asks = "answer"
    threshold: float = 1.0
    reference_is_answer: bool = False
    judged: bool = False

    def problems(self, item: EvalItem) -> list[str]:
        """A pattern that does not compile. Whether it explodes is seen when it meets an answer, or by `probe`."""
        try:
            found = re.compile(item.reference, re.IGNORECASE | re.DOTALL)
        except (re.error, OverflowError, RecursionError) as error:
            return [f"the regular expression does not compile: {error}"]
        # What must not be said ("(?!...)") is not said by an empty answer either; that is a pattern one may want.
        if "(?!" not in item.reference and "(?<!" not in item.reference and found.search(""):
            return ["the regular expression accepts an empty answer: ask for something with it, such as `.+`"]
        return []

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        """Raises EvaluationError for a match that takes too long; the item is named."""
        found = search_all([(case.where, case.item.reference, case.output.answer) for case in cases])
        return [Score(float(one)) for one in found]


SCORER = RegexScorer()
_PROBES = ("a" * 60 + "!", "1" * 60 + "!", " " * 200 + "!", "a b " * 60 + "!", "word, " * 80 + "\n")


def probe(items: Sequence[EvalItem]) -> None:
    """Match every pattern of a suite with texts on which careless ones explode.

    Raises:
        EvaluationError: one took longer than a second; the item is named.
    """
    found = [(item, pattern) for item in items for pattern in _patterns(item)]
    cases = [
        (f"{item.suite}/{item.id}", pattern, text)
        for item, pattern in found
        for text in (*_PROBES, item.messages[-1].content)
    ]
    search_all(cases)


def _patterns(item: EvalItem) -> list[str]:
    if item.scorer == "json_schema":
        return patterns_of(json.loads(item.reference))
    return [item.reference] if item.scorer == "regex" else []
