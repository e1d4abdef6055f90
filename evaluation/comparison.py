"""`tidemill eval compare`: contestants on the same items, ranked, with what they cost and how long they took."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import ROUND_UP, Decimal
from itertools import combinations
from typing import Any

import numpy as np

from configs.errors import EvaluationError
from evaluation import ranking
from evaluation.contest import Contestant, Measured
from evaluation.judge import Judge
from evaluation.preference import WinRate, prefer, win_rate
from evaluation.scorers.registry import scorer


@dataclass(frozen=True)
class Row:
    """One contestant's result."""

    name: str
    standing: ranking.Standing
    passed: int
    share: float
    suites: dict[str, float]
    """Share of passed items by suite."""
    seconds_median: float | None
    """Of one answer; of local models each answer's share of its batch."""
    prompt_tokens: int | None
    answer_tokens: int | None
    micro_dollars: int | None
    """Of all answers at the given prices; None without prices or without a count of tokens."""


@dataclass(frozen=True)
class Comparison:
    """Contestants from strongest to weakest."""

    rows: tuple[Row, ...]
    items: int
    """Items all were asked."""
    left_out: int
    """Items that somebody could not be asked."""
    by: str
    """`passed` or `preference`."""
    pairs: dict[str, WinRate]
    """`A over B` -> preference of the judge; empty where passed items decide."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def _common(measured: Sequence[Measured], answers_only: bool) -> list[int]:
    """Places of items that everybody was asked."""
    items = measured[0].items
    found = [i for i in range(len(items)) if all(m.scores[i] is not None for m in measured)]
    if answers_only:
        found = [i for i in found if scorer(items[i].scorer).asks == "answer"]
    if not found:
        raise EvaluationError(
            "there is no item that all could be asked",
            expected="items with scorers of answers: an endpoint gives no likelihoods",
            found=f"{len(items)} items",
        )
    return found


def cost(contestant: Contestant, prompt_tokens: int | None, answer_tokens: int | None) -> int | None:
    """Micro-dollars, rounded up; None where a price or a count is not known."""
    if contestant.prices is None or prompt_tokens is None or answer_tokens is None:
        return None
    exact = contestant.prices.prompt * prompt_tokens + contestant.prices.answer * answer_tokens
    return int(exact.quantize(Decimal(1), rounding=ROUND_UP))


def _total(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _row(measured: Measured, places: Sequence[int], standing: ranking.Standing) -> Row:
    outputs = [output for i in places if (output := measured.outputs[i]) is not None]
    spoken = [o for i, o in zip(places, outputs, strict=True) if scorer(measured.items[i].scorer).asks == "answer"]
    seconds = [o.seconds for o in spoken if o.seconds is not None]
    good = {i: measured.passed(i) or 0.0 for i in places}
    suites: dict[str, list[float]] = {}
    for i in places:
        suites.setdefault(measured.items[i].suite, []).append(good[i])
    tokens = (_total([o.prompt_tokens for o in spoken]), _total([o.answer_tokens for o in spoken]))
    return Row(
        name=measured.contestant.name,
        standing=standing,
        passed=int(sum(good.values())),
        share=sum(good.values()) / len(places),
        suites={name: sum(values) / len(values) for name, values in suites.items()},
        seconds_median=statistics.median(seconds) if seconds else None,
        prompt_tokens=tokens[0],
        answer_tokens=tokens[1],
        micro_dollars=cost(measured.contestant, *tokens),
    )


def _preferences(
    measured: Sequence[Measured], places: Sequence[int], judge: Judge
) -> tuple[np.ndarray, dict[str, WinRate]]:
    """(items, models, models) from the judge's preferences, and the win rate of each pair."""
    beaten = np.zeros((len(places), len(measured), len(measured)))
    pairs = {}
    for a, b in combinations(range(len(measured)), 2):
        one, other = measured[a], measured[b]
        cases = []
        for i in places:
            first, second = one.outputs[i], other.outputs[i]
            if first is None or second is None:
                raise EvaluationError("an answer is missing", where=one.items[i].id)
            cases.append((one.items[i], first.answer, second.answer))
        values = prefer(cases, judge)
        beaten[:, a, b], beaten[:, b, a] = values, 1.0 - np.array(values)
        pairs[f"{one.contestant.name} over {other.contestant.name}"] = win_rate(values)
    return beaten, pairs


def compare(
    measured: Sequence[Measured], *, judge: Judge | None = None, resamples: int = 1_000, seed: int = 0
) -> Comparison:
    """Rank contestants on the items all were asked.

    Args:
        measured: of the same items.
        judge: ranks by its preference between answers instead of by passed items.

    Raises:
        EvaluationError: fewer than two, two of one name, other items, a missing score, or nothing in common.
    """
    names = [m.contestant.name for m in measured]
    if len(names) < 2 or len(set(names)) != len(names):
        raise EvaluationError("a comparison needs two or more models with different names", found=", ".join(names))
    ids = [[(item.suite, item.id) for item in m.items] for m in measured]
    if any(one != ids[0] for one in ids):
        raise EvaluationError("the models were not asked the same items", found=", ".join(names))
    for one in measured:
        one.check()
    places = _common(measured, judge is not None)
    pairs: dict[str, WinRate] = {}
    if judge is not None:
        beaten, pairs = _preferences(measured, places, judge)
    else:
        beaten = ranking.wins(np.array([[one.passed(i) or 0.0 for one in measured] for i in places]))
    standings = ranking.rank(beaten, resamples=resamples, seed=seed)
    rows = [_row(one, places, standing) for one, standing in zip(measured, standings, strict=True)]
    return Comparison(
        rows=tuple(sorted(rows, key=lambda row: (row.standing.rank, row.name))),
        items=len(places),
        left_out=len(ids[0]) - len(places),
        by="preference" if judge is not None else "passed",
        pairs=pairs,
    )
