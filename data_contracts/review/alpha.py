"""Krippendorff's alpha: how far labellers agree beyond chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Agreement:
    """Agreement on units (items) that two or more people labelled.

    `alpha` = 1 - observed / expected disagreement: 1 perfect, 0 as by chance, below 0 systematic disagreement; None
    where it is not defined (no unit, or a single value used throughout, so that chance agrees always).
    `observed` is the share of pairs of labels that agree, None without a unit.
    """

    alpha: float | None
    observed: float | None
    units: int
    labels: int


Level = Literal["nominal", "ordinal"]


def alpha_of(units: Iterable[Sequence[Any]], level: Level) -> Agreement:
    """Agreement over nominal or ordinal values, by the `krippendorff` library.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability, University of Pennsylvania, 2011. Ordinal distances
    count the values between two, so 1 against 5 is worse than 4 against 5.

    Args:
        units: for each unit the values given to it, in any order; units with fewer than two do not count. Ordinal
            values are numbers.
        level: how values differ.
    """
    import krippendorff

    pairable = [Counter(values) for values in units if len(values) > 1]
    distinct = {value for counts in pairable for value in counts}
    domain = sorted(distinct) if level == "ordinal" else sorted(distinct, key=repr)
    labels = sum(counts.total() for counts in pairable)
    if not pairable:
        return Agreement(None, None, 0, 0)
    # Each unit weighs as its number of labels, its pairs as 1 / (labels - 1), as in alpha's own coincidences.
    same = sum(n * (n - 1) / (counts.total() - 1) for counts in pairable for n in counts.values())
    alpha = None
    if len(domain) > 1:
        table = [[counts[value] for value in domain] for counts in pairable]
        # Ordinal distances need the order of the values only, which is that of the columns.
        alpha = float(krippendorff.alpha(value_counts=table, level_of_measurement=level))
    return Agreement(alpha, same / labels, len(pairable), labels)


def nominal_alpha(units: Iterable[Sequence[Hashable]]) -> Agreement:
    """`alpha_of` nominal values."""
    return alpha_of(units, "nominal")


def alpha_by_labeller(units: Mapping[str, Mapping[str, Hashable]]) -> dict[str, Agreement]:
    """For each labeller the agreement over the units they labelled with others.

    Args:
        units: `{unit: {labeller: value}}`.
    """
    mine: dict[str, list[Sequence[Hashable]]] = defaultdict(list)
    for given in units.values():
        for labeller in given:
            mine[labeller].append(tuple(given.values()))
    return {labeller: nominal_alpha(values) for labeller, values in sorted(mine.items())}
