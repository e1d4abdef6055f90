"""Novelty: is a prompt farther from everything asked before than such prompts were from each other?

Score: mean cosine distance to the k nearest reference prompts of other people. Sequential alarm: conformal p-value ->
e-value -> e-CUSUM. What a reference of a few hundred prompts leaves unknown about the null is not ignored: the alarm
threshold is taken from stationary streams drawn from its posterior (a Bayesian bootstrap over people).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

EPSILONS = np.array([0.3, 0.5, 0.7, 0.85])
_BLOCK = 1024


def unit_hash(*parts: str) -> float:
    """A number in [0, 1) that depends on the strings alone: the randomness of ties and splits."""
    return int.from_bytes(sha256("\0".join(parts).encode()).digest()[:6], "big") / 2.0**48


def nearest_distance(
    queries: np.ndarray,
    reference: np.ndarray,
    k: int,
    *,
    owners: tuple[Sequence[str], Sequence[str]] | None = None,
) -> np.ndarray:
    """(n,) mean cosine distance of each query to its `k` nearest reference rows.

    Args:
        queries: (n, d) rows of length 1; reference: (m, d) likewise, m > 0.
        owners: principals of queries and of reference rows: a person's own rows are not counted as near.
    """
    k = min(k, len(reference))
    theirs = None if owners is None else np.asarray(owners[1])
    scores = np.empty(len(queries))
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ reference.T
        if owners is not None and theirs is not None:
            block[np.asarray(owners[0][start : start + _BLOCK])[:, None] == theirs[None, :]] = -1.0
        top = np.partition(block, -k, axis=1)[:, -k:]
        scores[start : start + _BLOCK] = 1.0 - top.mean(axis=1)
    return scores


def log_e_value(p: np.ndarray | float) -> np.ndarray:
    """log of mean_j eps_j p^(eps_j - 1): a bet that p-values are small (an e-value: it integrates to 1 over p)."""
    grid = EPSILONS * np.power(np.asarray(p, dtype=float)[..., None], EPSILONS - 1.0)
    return np.asarray(np.log(grid.mean(axis=-1)))


def principal_weights(principals: Sequence[str], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, n) Bayesian bootstrap weights, equal within a principal, mean 1: people are the unit that was sampled."""
    _, person = np.unique(np.asarray(principals), return_inverse=True)
    weights = rng.exponential(1.0, (draws, int(person.max()) + 1))[:, person]
    return np.asarray(weights / weights.mean(axis=1, keepdims=True))


@dataclass(frozen=True)
class NoveltyTest:
    """The calibrated test; its running value lives in the monitor's state."""

    calibration: np.ndarray
    """(n,) scores of the reference prompts, ascending, each against the other people's."""
    threshold: float
    """Alarm when the log of the e-CUSUM reaches it."""

    def p_value(self, score: float, text: str) -> float:
        """Conformal p-value in (0, 1]; ties are broken by a hash of the text, the same on every machine."""
        low = int(np.searchsorted(self.calibration, score, side="left"))
        high = int(np.searchsorted(self.calibration, score, side="right"))
        n = len(self.calibration)
        return (n - high + (1.0 - unit_hash("tie", text)) * (high - low + 1)) / (n + 1)

    def step(self, log_s: float, p: float) -> float:
        """The e-CUSUM after one more prompt: S <- max(S, 1) * e(p), in logarithms."""
        return max(log_s, 0.0) + float(log_e_value(p))


def calibrate(
    embeddings: np.ndarray,
    principals: Sequence[str],
    *,
    neighbours: int,
    horizon: int,
    risk: float,
    seed: int,
    draws: int = 200,
) -> NoveltyTest:
    """The test of a reference.

    Args:
        embeddings: (n, d) rows of length 1; principals: (n,) who asked.
        neighbours: k of the score.
        horizon: length of the stationary streams, in prompts.
        risk: largest share of such streams that may raise an alarm.
        seed: of the streams; derive it from the reference's digest.
    """
    scores = nearest_distance(embeddings, embeddings, neighbours, owners=(principals, principals))
    order = np.argsort(scores, kind="stable")
    rng = np.random.default_rng(seed)
    n = len(scores)
    weights = principal_weights([principals[i] for i in order], draws, rng)
    # The gap above the largest score is as uncertain as any other: one more draw.
    cumulative = np.cumsum(np.hstack([weights, rng.exponential(1.0, (draws, 1))]), axis=1)
    top = np.zeros(draws)
    for row in range(draws):
        index = np.searchsorted(cumulative[row], rng.random(horizon) * cumulative[row, -1], side="right")
        p = (n - index + 1.0 - rng.random(horizon)) / (n + 1)
        top[row] = _highest(log_e_value(p))
    return NoveltyTest(scores[order], float(np.quantile(top, 1.0 - risk)))


def _highest(steps: np.ndarray) -> float:
    """Highest value of a CUSUM that starts again from 0: the largest sum of consecutive steps."""
    total = np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.max(total - np.minimum.accumulate(total)))


def window_p_value(exceed: int, window: int, calibration: int, level: float = 0.05) -> float:
    """P(at least `exceed` of `window` stationary prompts score above the calibration's (1 - level) quantile).

    Beta-binomial: that quantile is itself estimated from `calibration` scores.
    """
    above = max(1, math.floor(level * (calibration + 1)))
    a, b = float(above), float(calibration + 1 - above)

    def log_beta(x: float, y: float) -> float:
        return math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y)

    terms = [
        math.lgamma(window + 1)
        - math.lgamma(j + 1)
        - math.lgamma(window - j + 1)
        + log_beta(j + a, window - j + b)
        - log_beta(a, b)
        for j in range(exceed, window + 1)
    ]
    return min(1.0, math.fsum(math.exp(t) for t in terms))
