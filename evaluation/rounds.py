"""Forgetting over the rounds: how far each round's candidate was from the base, suite by suite.

Every round trains from the base, so a suite that sinks from round to round is forgetting that creeps, which no single
comparison with the last champion shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_ROUNDS = 24
"""Rounds shown, the latest."""
_SHADES = (0.005, 0.03, 0.10)
"""Changes, as shares of items, from which on a cell is of the next darker shade."""


@dataclass(frozen=True)
class Round:
    """One retrain's candidate.

    Attributes:
        label: for example `#12`.
        outcome: what became of it, for example `promoted`.
        changes: suite -> candidate's share of items passed minus the base's.
    """

    label: str
    outcome: str
    changes: Mapping[str, float]


def round_of(label: str, outcome: str, means: Sequence[Mapping[str, Any]]) -> Round:
    """A round from the table of means of its evaluation step: {"suite", "base", "candidate", ...} a row."""
    changes = {
        str(row["suite"]): float(row["candidate"]) - float(row["base"])
        for row in means
        if "candidate" in row and "base" in row
    }
    return Round(label, outcome, changes)


def shade(change: float) -> int:
    """-3 (far below the base) to 3 (far above it)."""
    steps = sum(abs(change) >= edge for edge in _SHADES)
    return steps if change > 0 else -steps


def heat_map(rounds: Sequence[Round]) -> dict[str, Any] | None:
    """The table of the report, oldest round first; None before the second round, which is the first to compare."""
    shown = list(rounds)[-MAX_ROUNDS:]
    suites = sorted({suite for one in shown for suite in one.changes}, key=lambda name: (name != "target", name))
    if len(shown) < 2 or not suites:
        return None
    rows = []
    for one in shown:
        cells = []
        for suite in suites:
            change = one.changes.get(suite)
            text = "" if change is None else f"{change * 100:+.1f}"
            cells.append({"text": text, "shade": 0 if change is None else shade(change)})
        rows.append({"label": one.label, "outcome": one.outcome, "cells": cells})
    return {"suites": suites, "rows": rows}
