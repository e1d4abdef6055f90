"""Local share: did one region of the known domain grow? Finds a new topic where novelty is nearly blind.

k-means centres are fitted on one part of the reference, their shares estimated on people kept apart. Per centre, CUSUMs
of the log likelihood ratio "its share grew by delta" against an upper estimate of its reference share; the one
threshold for all is taken from stationary streams drawn from the posterior of the shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitoring.drift.novelty import principal_weights

DELTAS = np.array([0.03, 0.06, 0.12, 0.25])
_ROWS_PER_CENTRE = 18
_PRIOR_SHARE = 0.5
"""Weight of the fitting part's counts, as a prior, relative to the calibration part's."""


@dataclass(frozen=True)
class LocalShareTest:
    """The calibrated test; its running values live in the monitor's state."""

    centres: np.ndarray
    """(K, d) rows of length 1."""
    shares: np.ndarray
    """(K,) mean reference shares."""
    draws: np.ndarray
    """(draws, K) posterior draws of the shares."""
    hit: np.ndarray
    """(K, 4) log likelihood ratio of a prompt in the centre, per delta."""
    miss: np.ndarray
    """(K, 4) of a prompt elsewhere."""
    threshold: float

    def cell(self, embeddings: np.ndarray) -> np.ndarray:
        """(n,) index of the nearest centre."""
        return np.asarray(np.argmax(embeddings @ self.centres.T, axis=1))

    def step(self, sums: np.ndarray, cell: int) -> np.ndarray:
        """(K, 4) CUSUMs after one more prompt."""
        after = sums + self.miss
        after[cell] += self.hit[cell] - self.miss[cell]
        return np.asarray(np.maximum(after, 0.0))

    def start(self) -> np.ndarray:
        """(K, 4) CUSUMs before the first prompt."""
        return np.zeros_like(self.miss)


def calibrate(
    embeddings: np.ndarray,
    principals: Sequence[str],
    held: np.ndarray,
    *,
    clusters: int,
    horizon: int,
    risk: float,
    seed: int,
    draws: int = 100,
) -> LocalShareTest:
    """The test of a reference.

    Args:
        embeddings: (n, d) rows of length 1; principals: (n,) who asked.
        held: (n,) bool, the calibration part.
        clusters: most centres; a small reference gets fewer (one per 18 prompts of the fitting part).
        horizon: length of the stationary streams, in prompts; risk: largest share of them that may alarm.
        seed: of clustering, posterior draws and streams.
    """
    from sklearn.cluster import KMeans

    fit = embeddings[~held]
    k = max(2, min(clusters, len(fit) // _ROWS_PER_CENTRE))
    means = KMeans(n_clusters=k, n_init=4, random_state=seed % 2**31).fit(fit).cluster_centers_
    centres = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    rng = np.random.default_rng(seed)
    shares = _posterior(embeddings, principals, held, centres, rng, max(draws, 400))
    upper = np.quantile(shares, 0.975, axis=0)
    p0 = np.minimum(upper, 0.7)[:, None]
    hit, miss = np.log1p(DELTAS / p0), np.log1p(-DELTAS / (1 - p0))
    top = _stationary_maxima(shares[:draws], hit, miss, horizon, rng)
    return LocalShareTest(centres, shares.mean(axis=0), shares, hit, miss, float(np.quantile(top, 1.0 - risk)))


def _posterior(
    embeddings: np.ndarray,
    principals: Sequence[str],
    held: np.ndarray,
    centres: np.ndarray,
    rng: np.random.Generator,
    draws: int,
) -> np.ndarray:
    """(draws, K) shares: a Bayesian bootstrap over the calibration's people, with the fitting part as a weak prior."""
    cells = np.argmax(embeddings @ centres.T, axis=1)
    k = len(centres)
    one_hot = np.eye(k)[cells[held]]
    people = [p for p, c in zip(principals, held, strict=True) if c]
    counts = principal_weights(people, draws, rng) @ one_hot
    fitted = np.bincount(cells[~held], minlength=k) + 0.5
    prior = fitted * _PRIOR_SHARE * held.sum() / fitted.sum()
    total = counts + rng.gamma(np.broadcast_to(prior, counts.shape))
    return np.asarray(total / total.sum(axis=1, keepdims=True))


def _stationary_maxima(
    shares: np.ndarray, hit: np.ndarray, miss: np.ndarray, horizon: int, rng: np.random.Generator
) -> np.ndarray:
    """(draws,) highest CUSUM over all centres and deltas in one stream of `horizon` prompts per row of shares."""
    draws, k = shares.shape
    edges = np.cumsum(shares, axis=1)
    edges[:, -1] = 1.0
    cells = np.stack([np.searchsorted(edges[i], rng.random(horizon), side="right") for i in range(draws)])
    top = np.zeros(draws)
    # Between two visits a centre's CUSUM only falls, so each centre is followed over its own visits.
    for row in range(draws):
        order = np.argsort(cells[row], kind="stable")
        bounds = np.searchsorted(cells[row][order], np.arange(k + 1))
        for c in range(k):
            visits = order[bounds[c] : bounds[c + 1]]
            if len(visits) == 0:
                continue
            gaps = np.diff(visits, prepend=-1) - 1
            for d in range(miss.shape[1]):
                # Prefix sums at each visit; before it, the lowest level since the start is the floor.
                after = np.cumsum(gaps * miss[c, d] + hit[c, d])
                before = after - hit[c, d]
                floor = np.minimum.accumulate(np.minimum(before, 0.0))
                top[row] = max(top[row], float(np.max(after - floor)))
    return top
