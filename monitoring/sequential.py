"""Anytime-valid tests: evidence that may be looked at after every event without losing its error guarantee.

An e-process E starts at 1 and, as long as the null hypothesis holds, P(E ever reaches 1/alpha) <= alpha (Ville's
inequality), however often one looks and whenever one stops. Each test here is a weighted mixture of likelihood
ratios against a grid of alternatives, kept in log space: O(1) work and memory per event, whatever came before.

Source: Lindon and Malek, "Anytime-valid inference for multinomial count data" (arXiv 2011.03567).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.errors import InputError

CANARY = "canary"
FINE_GRID = tuple(1.05 * (4.0 / 1.05) ** (i / 24) for i in range(25))
"""Rate ratios of ordinary harm, log-spaced; 0.8 of the weight."""
COARSE_GRID = tuple(4.5 * (100.0 / 4.5) ** (i / 11) for i in range(12))
"""Rate ratios of gross harm, log-spaced; 0.2 of the weight, so that a broken canary is stopped after a few events."""
RATIOS = FINE_GRID + COARSE_GRID
LOG_WEIGHTS = tuple(
    [math.log(0.8 / len(FINE_GRID))] * len(FINE_GRID) + [math.log(0.2 / len(COARSE_GRID))] * len(COARSE_GRID)
)


def log_sum_exp(values: Sequence[float]) -> float:
    """log(sum(exp(values))) without overflow; -inf for an empty or all -inf sequence."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def check_share(q: float) -> float:
    """`q` if it is a share in [0, 1].

    Raises:
        InputError: a NaN or a number outside [0, 1].
    """
    if not 0.0 <= q <= 1.0:
        raise InputError("a canary share is out of range", expected="a number in [0, 1]", found=q)
    return q


@dataclass
class EProcess:
    """Is the canary's share of bad events larger than its share of traffic explains?

    With q the canary's share of traffic when the request was routed, an event is the canary's with probability
    theta(r) = q r / (q r + 1 - q), r the ratio of the canary's bad rate to the champion's. Tested: r <= r0 against
    r = r0 * r_j for the grid of r_j > 1; with `mirrored`, r >= r0 against r = r0 / r_j. Only bad events move it, so a
    base rate that drifts, or a share that ramps, changes nothing under the null.
    """

    r0: float = 1.0
    mirrored: bool = False
    log_ratios: list[float] = field(default_factory=lambda: [0.0] * len(RATIOS))
    """log of the likelihood ratio per grid point."""
    events: int = 0

    def update(self, x: bool, q: float) -> None:
        """Count one bad event.

        Args:
            x: the event is the canary's.
            q: the canary's share of traffic when the request was routed; 0 and 1 carry no evidence.

        Raises:
            InputError: `q` is not in [0, 1].
        """
        if check_share(q) in (0.0, 1.0):
            return
        self.events += 1
        base = math.log(q * self.r0 + 1.0 - q)
        for j, ratio in enumerate(RATIOS):
            r = 1.0 / ratio if self.mirrored else ratio
            self.log_ratios[j] += (math.log(r) if x else 0.0) + base - math.log(q * self.r0 * r + 1.0 - q)

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value."""
        return log_sum_exp([w + v for w, v in zip(LOG_WEIGHTS, self.log_ratios, strict=True)])

    @property
    def e(self) -> float:
        """The e-value, capped at 1e300 so that it stays a number."""
        return math.exp(min(self.log_e, 690.0))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able state; `from_dict` gives back an equal process."""
        return {"r0": self.r0, "mirrored": self.mirrored, "log_ratios": list(self.log_ratios), "events": self.events}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> EProcess:
        """The process that `to_dict` described.

        Raises:
            InputError: the state was written with another grid.
        """
        if len(state["log_ratios"]) != len(RATIOS):
            raise InputError(
                "saved evidence does not fit this version's grid",
                expected=f"{len(RATIOS)} ratios",
                found=len(state["log_ratios"]),
                fix="abort the rollout and start it again",
            )
        return cls(
            float(state["r0"]), bool(state["mirrored"]), [float(v) for v in state["log_ratios"]], int(state["events"])
        )


def promotion_process(margin: float) -> EProcess:
    """Evidence that the canary is less than `margin` times as bad as the champion (null: at least `margin` times)."""
    return EProcess(r0=margin, mirrored=True)


@dataclass
class SampleRatio:
    """Did users land on the canary as often as its share says? Two-sided, one count per user at first assignment."""

    more: EProcess = field(default_factory=EProcess)
    fewer: EProcess = field(default_factory=lambda: EProcess(mirrored=True))

    def update(self, x: bool, q: float) -> None:
        """Count one user's first assignment: `x` if to the canary, at share `q`."""
        self.more.update(x, q)
        self.fewer.update(x, q)

    @property
    def log_e(self) -> float:
        """Natural logarithm of the e-value: the mean of the two one-sided ones."""
        return log_sum_exp([self.more.log_e, self.fewer.log_e]) - math.log(2.0)

    @property
    def p(self) -> float:
        """Anytime-valid p-value at this moment, min(1, 1/E)."""
        return math.exp(-max(0.0, self.log_e))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"more": self.more.to_dict(), "fewer": self.fewer.to_dict()}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> SampleRatio:
        """The test that `to_dict` described."""
        return cls(EProcess.from_dict(state["more"]), EProcess.from_dict(state["fewer"]))


_FRACTIONS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_FRACTION_LOG_WEIGHTS = (math.log(0.5),) + (math.log(0.05),) * 10


@dataclass
class RateBound:
    """Anytime-valid upper bound of a rate of bad requests, from two counts.

    For each p the null "the rate is >= p" is tested with E_p = sum_j w_j s_j^k ((1 - s_j p)/(1 - p))^(n - k): the
    alternatives are the rates s_j p, with half of the weight on no bad request at all. E_p grows with p, so the bound
    is the smallest p that is rejected. With k = 0 it is about 3.7/n at alpha = 0.05.

    The requests are taken as exchangeable; where few users send most of them the bound is too narrow.
    """

    alpha: float = 0.05
    n: int = 0
    bad: int = 0

    def update(self, x: bool) -> None:
        """Count one request; `x` if it was bad."""
        self.n += 1
        self.bad += int(x)

    def log_e(self, p: float) -> float:
        """Natural logarithm of the evidence against "the rate is >= p", 0 < p < 1."""
        good = self.n - self.bad
        terms = []
        for s, w in zip(_FRACTIONS, _FRACTION_LOG_WEIGHTS, strict=True):
            if s == 0.0 and self.bad:
                continue
            lost = self.bad * math.log(s) if self.bad else 0.0
            terms.append(w + lost + good * (math.log1p(-s * p) - math.log1p(-p)))
        return log_sum_exp(terms)

    def below(self, slo: float) -> bool:
        """True if the rate is shown to be below `slo`; no data shows nothing."""
        if self.n == 0 or slo <= 0.0 or self.bad >= slo * self.n:
            return False
        return slo >= 1.0 or self.log_e(slo) >= -math.log(self.alpha)

    @property
    def upper(self) -> float:
        """The bound, to 1e-6; 1.0 without data."""
        low, high = (self.bad / self.n if self.n else 1.0), 1.0
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (low, middle) if self.below(middle) else (middle, high)
        return high

    def to_dict(self) -> dict[str, Any]:
        """JSON-able state."""
        return {"alpha": self.alpha, "n": self.n, "bad": self.bad}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> RateBound:
        """The bound that `to_dict` described."""
        return cls(float(state["alpha"]), int(state["n"]), int(state["bad"]))
