"""From raw outputs to item scores: each scorer gets all its cases at once, then the threshold decides.

The gate counts passed items, so `ItemScore.score` is 0 or 1; what the scorer gave before is kept as `raw` where it was
neither.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from configs.errors import EvaluationError
from data_contracts.records import EvalItem, ItemScore
from evaluation.answers import Output
from evaluation.scorers.base import Case, Score, Tools
from evaluation.scorers.registry import scorer


def raw_scores(items: Sequence[EvalItem], outputs: Sequence[Output], tools: Tools) -> list[Score]:
    """What the scorers give, in the items' order; a score may be missing.

    Raises:
        EvaluationError: a likelihood that is not a number, a regular expression that takes too long, a tool that is
            not there, or a scorer that does not keep its contract.
    """
    if len(items) != len(outputs):
        raise EvaluationError("not one output for each item", expected=len(items), found=len(outputs))
    places: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        places[item.scorer].append(place)
    scores: dict[int, Score] = {}
    for name, mine in places.items():
        given = _given(name, [Case(items[i], outputs[i]) for i in mine], tools)
        if len(given) != len(mine):
            raise EvaluationError(
                "a scorer left out cases", where=name, expected=f"{len(mine)} scores", found=len(given)
            )
        for place, score in zip(mine, given, strict=True):
            if score.value is not None and not 0.0 <= score.value <= 1.0:
                raise EvaluationError(
                    "a score is not in [0, 1]",
                    where=f"{items[place].suite}/{items[place].id}",
                    expected=f"a number in [0, 1] from scorer `{name}`",
                    found=score.value,
                )
            scores[place] = score
    return [scores[place] for place in range(len(items))]


def _given(name: str, cases: Sequence[Case], tools: Tools) -> Sequence[Score]:
    """What one scorer gives; a third-party one may do anything.

    Raises:
        EvaluationError: it raises, or gives something that is no score.
    """
    try:
        given = list(scorer(name).score(cases, tools))
    except EvaluationError:
        raise
    except Exception as error:
        raise EvaluationError("a scorer failed", where=f"scorer `{name}`", found=f"{error!r:.300}") from error
    for one in given:
        if not isinstance(one, Score) or not (one.value is None or isinstance(one.value, int | float)):
            raise EvaluationError(
                "not a score", where=f"scorer `{name}`", expected="Score(number)", found=f"{one!r:.80}"
            )
    return given


def passed(item: EvalItem, value: float) -> float:
    """1.0 if a score reaches the item's threshold, or its scorer's."""
    threshold = scorer(item.scorer).threshold if item.threshold is None else item.threshold
    return float(value >= threshold - 1e-9)


def item_score(item: EvalItem, output: Output, score: Score) -> ItemScore | None:
    """The record of one score; None if it is missing."""
    if score.value is None:
        return None
    raw = None if score.value in (0.0, 1.0) else score.value
    return ItemScore(item_id=item.id, score=passed(item, score.value), answer=output.answer, nll=output.nll, raw=raw)


def missing_error(missing: Sequence[tuple[EvalItem, str]], total: int) -> EvaluationError:
    """The error for scores that could not be given: how many, where, why."""
    reasons = Counter(why for _, why in missing)
    first, why = missing[0]
    return EvaluationError(
        "scores are missing, so there is no verdict",
        where=f"{first.suite}/{first.id} (scorer `{first.scorer}`)",
        expected=f"{total} scores",
        found=f"{len(missing)} missing: {why}"
        + (f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""),
        fix="run it again when the scorer works: answers are cached",
    )


def score_outputs(
    items: Sequence[EvalItem], outputs: Sequence[Output], tools: Tools | None = None
) -> tuple[ItemScore, ...]:
    """Score raw outputs, in order, all of them.

    Raises:
        EvaluationError: see `raw_scores`; or a score is missing.
    """
    given = raw_scores(items, outputs, tools or Tools())
    missing = [(item, score.why) for item, score in zip(items, given, strict=True) if score.value is None]
    if missing:
        raise missing_error(missing, len(items))
    made = [item_score(*three) for three in zip(items, outputs, given, strict=True)]
    return tuple(one for one in made if one is not None)
