"""Bradley-Terry: strengths from who beats whom, with intervals from resampling items. Pure.

P(i beats j) = p_i / (p_i + p_j). The maximum-likelihood strengths are found by D. R. Hunter, "MM algorithms for
generalized Bradley-Terry models", Annals of Statistics 32 (2004) 384-406; a tie is half a win for each. To every pair
one tie is added, so that a model that won everything has a finite strength. R. A. Bradley and M. E. Terry, "Rank
analysis of incomplete block designs", Biometrika 39 (1952) 324-345.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PRIOR = 1.0
"""Ties added to each pair."""
ROUNDS = 2_000
"""Most steps of the fit; some twenty are usual."""


@dataclass(frozen=True)
class Standing:
    """One contestant. Strengths are log odds against the average contestant: 0 is average, 1.1 wins 3 of 4."""

    strength: float
    low: float
    high: float
    rank: int
    best_rank: int
    worst_rank: int
    """Ranks in the central 95 % (or as asked) of the resamples."""
    win_rate: float
    """Against all others over all items, ties half."""


def wins(values: np.ndarray) -> np.ndarray:
    """(items, models) of values, to (items, models, models): 1 where the row's model beats the column's, .5 for a tie.

    Raises:
        ValueError: a value that is not finite, fewer than two models, or no item.
    """
    if values.ndim != 2 or values.shape[0] < 1 or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"expected finite values of two or more models on at least one item, found {values.shape}")
    difference = values[:, :, None] - values[:, None, :]
    beaten: np.ndarray = np.where(difference > 1e-9, 1.0, np.where(difference < -1e-9, 0.0, 0.5))
    diagonal = np.arange(values.shape[1])
    beaten[:, diagonal, diagonal] = 0.0
    return beaten


def fit(won: np.ndarray) -> np.ndarray:
    """Log strengths with mean 0.

    Args:
        won: (..., models, models) numbers of wins of the row's model over the column's.

    Returns:
        (..., models).
    """
    count = won.shape[-1]
    diagonal = np.arange(count)
    won = won + PRIOR / 2
    won[..., diagonal, diagonal] = 0.0
    met = won + np.swapaxes(won, -1, -2)
    total = won.sum(-1)
    strength = np.ones(won.shape[:-1])
    for _ in range(ROUNDS):
        sums = strength[..., :, None] + strength[..., None, :]
        updated = total / (met / sums).sum(-1)
        updated /= np.exp(np.log(updated).mean(-1, keepdims=True))
        moved = float(np.abs(np.log(updated) - np.log(strength)).max())
        strength = updated
        if moved < 1e-9:
            break
    return np.log(strength)


def _ranks(strengths: np.ndarray) -> np.ndarray:
    """(..., models) ranks, 1 is strongest; equals share the better one."""
    ahead: np.ndarray = (strengths[..., None, :] > strengths[..., :, None] + 1e-9).sum(-1)
    return ahead + 1


def rank(beaten: np.ndarray, *, resamples: int = 1_000, level: float = 0.95, seed: int = 0) -> list[Standing]:
    """Standings of contestants from per-item results.

    Args:
        beaten: (items, models, models), see `wins`.
        resamples: bootstrap samples of items; the same seed gives the same intervals.
        level: share of the resamples inside an interval.
    """
    items, count, _ = beaten.shape
    strengths = fit(beaten.sum(0))
    drawn = np.random.default_rng(seed).multinomial(items, np.full(items, 1.0 / items), size=resamples)
    again = fit(np.tensordot(drawn.astype(float), beaten, axes=1))
    edges = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(again, edges, axis=0)
    best, worst = np.quantile(_ranks(again), edges, axis=0, method="nearest")
    rates = beaten.sum((0, 2)) / (items * (count - 1))
    return [
        Standing(
            strength=float(strengths[i]),
            low=float(low[i]),
            high=float(high[i]),
            rank=int(_ranks(strengths)[i]),
            best_rank=int(best[i]),
            worst_rank=int(worst[i]),
            win_rate=float(rates[i]),
        )
        for i in range(count)
    ]
