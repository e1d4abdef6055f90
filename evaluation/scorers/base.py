"""What a scorer is: the protocol, what it gets and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from data_contracts.records import EvalItem
from evaluation.answers import Output

if TYPE_CHECKING:
    from evaluation.judge import Judge

Asks = Literal["answer", "likelihood", "choices"]
"""What the model is asked for: an answer (and, where the reference is one, its likelihood), the reference's likelihood
alone, or that of each of the choices."""
Embed = Callable[[Sequence[str]], Any]
"""Texts to (n, dimensions) rows of length one."""


@dataclass(frozen=True)
class Case:
    """One item and a model's raw result on it."""

    item: EvalItem
    output: Output

    @property
    def where(self) -> str:
        return f"{self.item.suite}/{self.item.id}"


@dataclass(frozen=True)
class Score:
    """In [0, 1]; None is missing, and `why` says for what reason. A missing score is an error, never a pass."""

    value: float | None
    why: str = ""


@dataclass(frozen=True)
class Tools:
    """What scorers may use beside the texts; absent tools make those that need them fail, saying so.

    Args:
        embed: sentence embeddings.
        judge: the judge model.
    """

    embed: Embed | None = None
    judge: Judge | None = None


@runtime_checkable
class Scorer(Protocol):
    """A way of scoring. Stateless; many cases at once, so that it may batch."""

    asks: Asks
    threshold: float
    """Score from which an item counts as passed, unless the item has its own."""
    reference_is_answer: bool
    """The reference is something a model could say: its likelihood means something, and training on it is cheating."""
    judged: bool
    """A model gives the score. Such scorers are never a gate's only ones."""

    def problems(self, item: EvalItem) -> list[str]:
        """What makes an item unusable for this scorer; empty if nothing does."""
        ...

    def score(self, cases: Sequence[Case], tools: Tools) -> Sequence[Score]:
        """One score for each case, in order.

        Raises:
            EvaluationError: nothing can be scored at all (a likelihood that is not a number, a tool that is not there).
        """
        ...


def _nothing(_: EvalItem) -> list[str]:
    return []


@dataclass(frozen=True)
class TextScorer:
    """A scorer made of one function of an item and an answer; enough for most third-party ones."""

    rate: Callable[[EvalItem, str], float | None]
    """The score in [0, 1], or None where it cannot be given."""
    check: Callable[[EvalItem], list[str]] = field(default=_nothing)
    threshold: float = 1.0
    reference_is_answer: bool = False
    judged: bool = False
    asks: Asks = "answer"

    def problems(self, item: EvalItem) -> list[str]:
        return self.check(item)

    def score(self, cases: Sequence[Case], tools: Tools) -> list[Score]:
        values = [self.rate(case.item, case.output.answer) for case in cases]
        return [Score(value, "" if value is not None else "the scorer gave none") for value in values]
