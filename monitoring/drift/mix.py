"""Mix shift: are the centres' counts in a window what the reference says? Chi-squared, null by simulation.

The null draws the shares from their posterior and then the window: with shares estimated from a few hundred
prompts the textbook chi-squared distribution would alarm far too often.
"""

from __future__ import annotations

import numpy as np


def statistic(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Pearson's chi-squared of (..., K) counts against (K,) shares."""
    expected = counts.sum(axis=-1, keepdims=True) * shares
    return np.asarray(((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum(axis=-1))


def null_statistics(draws: np.ndarray, window: int, seed: int, samples: int = 4000) -> np.ndarray:
    """(samples,) ascending chi-squared values of stationary windows.

    Args:
        draws: (b, K) posterior draws of the shares.
        window: prompts per window.
    """
    rng = np.random.default_rng(seed)
    rows = draws[rng.integers(0, len(draws), samples)]
    return np.sort(statistic(rng.multinomial(window, rows), draws.mean(axis=0)))


def p_value(value: float, null: np.ndarray) -> float:
    """Share of the null at or above `value`, never 0."""
    return float((len(null) - np.searchsorted(null, value, side="left") + 1) / (len(null) + 1))
