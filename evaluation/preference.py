"""Which of two answers is better: a judge model's preference, asked in both orders, with win rate and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.judge import Judge, Question

_TASK = (
    "Two assistants answered the same conversation. Decide which answer serves the user better: right first, then "
    "complete, then short and polite. Say tie if neither does."
)
_OPTIONS = ("first", "second", "tie")
_VALUE = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class WinRate:
    """Share of comparisons the first model won, ties half, with its interval."""

    rate: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def _question(item: EvalItem, first: str, second: str) -> Question:
    conversation = [{"role": m.role, "content": m.content} for m in item.messages]
    return Question(_TASK, (("conversation", conversation), ("first", first), ("second", second)), "better", _OPTIONS)


def prefer(cases: Sequence[tuple[EvalItem, str, str]], judge: Judge) -> list[float]:
    """1 where the first answer is preferred, 0 the second, 0.5 a tie, in order.

    A preference that changes when the two change places is a tie; equal answers are one without being asked about.

    Raises:
        EvaluationError: a verdict is missing (the judge is down or answers nonsense).
    """
    open_places = [i for i, (_, a, b) in enumerate(cases) if a != b]
    asked = [cases[i] for i in open_places]
    given = judge.rule_twice([(_question(item, a, b), _question(item, b, a)) for item, a, b in asked])
    found = [0.5] * len(cases)
    for place, (straight, turned) in zip(open_places, given, strict=True):
        if not straight.verdict or not turned.verdict:
            item = cases[place][0]
            raise EvaluationError(
                "a preference is missing, so there is no verdict",
                where=f"{item.suite}/{item.id}",
                expected="a verdict of the judge in both orders",
                found=straight.why or turned.why,
                fix="run it again when the judge works: answers and verdicts are kept",
            )
        one, other = _VALUE[straight.verdict], 1.0 - _VALUE[turned.verdict]
        judge.use.order_flips += one != other
        found[place] = one if one == other else 0.5
    return found


def win_rate(preferences: Sequence[float], level: float = 0.95) -> WinRate:
    """Win rate with E. B. Wilson's interval (JASA 22, 1927, 209-212); ties count half, which makes it conservative.

    Raises:
        ValueError: no preference.
    """
    n = len(preferences)
    if not n:
        raise ValueError("a win rate needs at least one comparison")
    rate = math.fsum(preferences) / n
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return WinRate(
        rate=rate,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
        wins=sum(p == 1.0 for p in preferences),
        ties=sum(p == 0.5 for p in preferences),
        losses=sum(p == 0.0 for p in preferences),
    )
