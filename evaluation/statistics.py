"""Statistics of the gate: score bounds, paired t bounds, exact shares, size checks made before looking. Pure.

Notation: n items answered by both models; `gained` items 0 -> 1, `lost` items 1 -> 0; the difference
(candidate - reference) is (gained - lost) / n. All bounds are one-sided.

Sources: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998) 891-908 (score statistic and its constrained
maximum-likelihood estimate); the size check is the asymptotic power of that test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

_NORMAL = NormalDist()
_MAX_N = 10_000_000


def _constrained_q(n: float, gained: float, lost: float, difference: float) -> float:
    """Maximum-likelihood P(1 -> 0) given P(0 -> 1) - P(1 -> 0) = difference (Tango 1998)."""
    a = 2.0 * n
    b = (2.0 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1.0 - difference)
    root = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    return max(root, 0.0, -difference)


def score_z(n: int, gained: int, lost: int, difference: float) -> float:
    """Tango's score statistic for H0: true difference = `difference`; falls as `difference` grows.

    Returns +-inf where the null allows no variance but the data contradict it.
    """
    q = _constrained_q(n, gained, lost, difference)
    variance = n * (2.0 * q + difference * (1.0 - difference))
    distance = gained - lost - n * difference
    if variance <= 1e-12:
        return 0.0 if abs(distance) < 1e-9 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)


def _check_counts(n: int, gained: int, lost: int, alpha: float) -> None:
    if n < 1 or gained < 0 or lost < 0 or gained + lost > n:
        raise ValueError(f"not paired counts: n={n}, gained={gained}, lost={lost}")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must be in (0, 0.5), not {alpha}")


def _bisect(above: Callable[[float], bool], low: float, high: float) -> float:
    """The point where `above` turns from true to false, to 1e-12."""
    for _ in range(60):
        middle = (low + high) / 2.0
        if above(middle):
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def score_lower(n: int, gained: int, lost: int, alpha: float = 0.05) -> float:
    """One-sided lower bound of the paired difference at level `alpha`, in [-1, 1].

    `score_lower(...) > -m` is the non-inferiority test with margin m; `> g` the superiority test with least
    gain g. With no flip at all it is above -0.02 only from n = 133 on.

    Raises:
        ValueError: counts that cannot be, or alpha outside (0, 0.5).
    """
    _check_counts(n, gained, lost, alpha)
    z = _NORMAL.inv_cdf(1.0 - alpha)
    estimate = (gained - lost) / n
    if score_z(n, gained, lost, -1.0) <= z:
        return -1.0
    return _bisect(lambda d: score_z(n, gained, lost, d) > z, -1.0, estimate)


def score_upper(n: int, gained: int, lost: int, alpha: float = 0.05) -> float:
    """One-sided upper bound of the paired difference at level `alpha`, in [-1, 1] (mirror of `score_lower`)."""
    return -score_lower(n, lost, gained, alpha)


def non_inferiority_power(n: int, margin: float, discordance: float, alpha: float = 0.05) -> float:
    """Chance that a candidate whose true difference is 0 passes the non-inferiority test (asymptotic).

    Args:
        n: items.
        margin: non-inferiority margin, a share of items in (0, 1).
        discordance: share of items expected to flip, half of them each way; 0 asks what even a candidate
            that flips nothing would need.
    """
    if margin <= 0.0 or n < 1:
        return 0.0
    half = discordance / 2.0
    q = _constrained_q(1.0, half, half, -margin)
    null_sd = math.sqrt(max(2.0 * q - margin * (1.0 + margin), 0.0))
    slack = margin * math.sqrt(n) - _NORMAL.inv_cdf(1.0 - alpha) * null_sd
    if discordance <= 0.0:
        return 1.0 if slack > 0.0 else 0.0
    return _NORMAL.cdf(slack / math.sqrt(discordance))


def _fewest(least: int, enough: Callable[[int], bool]) -> int:
    """The smallest number from `least` on that is enough, by doubling and halving; a power of two past `_MAX_N`."""
    low, high = least - 1, least
    while high < _MAX_N and not enough(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def required_items(margin: float, discordance: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Fewest items with which an unchanged candidate passes with chance `power`; about 16 d / m^2 at power .99.

    Raises:
        ValueError: a margin of 0: no number of items proves exact equality.
    """
    if margin <= 0.0:
        raise ValueError("non-inferiority needs a margin above 0")
    return _fewest(1, lambda n: non_inferiority_power(n, margin, discordance, alpha) >= power)


def smallest_margin(n: int, discordance: float, alpha: float = 0.05, power: float = 0.95) -> float:
    """The finest margin that n items can decide with chance `power`: what a suite of this size is good for."""
    return _bisect(lambda m: non_inferiority_power(n, m, discordance, alpha) < power, 1e-6, 1.0)


def required_items_superiority(
    min_gain: float, discordance: float, alpha: float = 0.05, limit: int = 1_000_000
) -> int | None:
    """Fewest items with which superiority could be shown if `discordance` of them flip, all for the better.

    None if even `limit` items could not show it (the least gain is not below the expected discordance).
    """
    if discordance <= min_gain:
        return None

    def shows(n: int) -> bool:
        gained = math.floor(discordance * n + 1e-9)
        return gained > 0 and score_lower(n, gained, 0, alpha) > min_gain

    n = 1
    while not shows(n):
        n = n + 1 if n < 200 else int(n * 1.02) + 1
        if n > limit:
            return None
    return n


def paired_t_bounds(differences: Sequence[float], alpha: float = 0.05) -> tuple[float, float, float]:
    """Mean and one-sided lower and upper bounds of a paired difference (for log-likelihoods, nats per token).

    Raises:
        ValueError: fewer than two differences.
    """
    n = len(differences)
    if n < 2:
        raise ValueError("a paired t bound needs at least two differences")
    from scipy.stats import t

    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    width = float(t.ppf(1.0 - alpha, n - 1)) * math.sqrt(variance / n)
    return mean, mean - width, mean + width


def paired_t_power(n: int, margin: float, sd: float, alpha: float = 0.05) -> float:
    """Chance that a candidate whose true mean change is 0 passes the paired t test against `-margin` (noncentral t).

    Args:
        n: items; below two no test exists and the chance is 0.
        margin: in nats per token, above 0.
        sd: expected standard deviation of the change over items, nats per token.
    """
    if n < 2 or margin <= 0.0:
        return 0.0
    from scipy.stats import nct, t

    power = 1.0 - float(nct.cdf(float(t.ppf(1.0 - alpha, n - 1)), n - 1, margin * math.sqrt(n) / sd))
    # Far out in the tail the noncentral t is not computed but NaN: there the test cannot fail.
    return 1.0 if math.isnan(power) else power


def required_items_paired_t(margin: float, sd: float, alpha: float = 0.05, power: float = 0.95) -> int:
    """Fewest items with which an unchanged candidate passes the paired t test with chance `power`."""
    return _fewest(2, lambda n: paired_t_power(n, margin, sd, alpha) >= power)


# --- shares: one sample, exact ------------------------------------------------------------------------


def _check_share(k: int, n: int, alpha: float) -> None:
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"not a share: {k} of {n}")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha must be in (0, 0.5), not {alpha}")


def share_upper(k: int, n: int, alpha: float = 0.05) -> float:
    """Exact one-sided upper bound of a share of which k in n were seen; it covers with at least 1 - alpha.

    C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26 (1934) 404-413: the share at which k or fewer have probability alpha.

    Raises:
        ValueError: counts that cannot be, or alpha outside (0, 0.5).
    """
    _check_share(k, n, alpha)
    if k == n:
        return 1.0
    from scipy.special import betaincinv

    return float(betaincinv(k + 1, n - k, 1.0 - alpha))


def share_lower(k: int, n: int, alpha: float = 0.05) -> float:
    """Exact one-sided lower bound of a share (mirror of `share_upper`)."""
    _check_share(k, n, alpha)
    return 1.0 - share_upper(n - k, n, alpha)


def share_below_power(n: int, limit: float, expected: float, alpha: float = 0.05) -> float:
    """Chance that `share_upper` stays below `limit` if the true share is `expected` (exact binomial)."""
    if n < 1:
        return 0.0
    from scipy.special import bdtr

    low, high = -1, n  # the largest count whose bound is below the limit lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if share_upper(middle, n, alpha) < limit:
            low = middle
        else:
            high = middle
    return float(bdtr(low, n, expected)) if low >= 0 else 0.0


# --- many slices --------------------------------------------------------------------------------------


def loss_p(gained: int, lost: int) -> float:
    """Exact one-sided p-value of "as many items were gained as lost" against "more were lost".

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 12 (1947) 153-157; the exact form is the sign test on the items that changed.
    """
    changed = gained + lost
    return sum(math.comb(changed, k) for k in range(lost, changed + 1)) / 2**changed


def holm(p_values: Sequence[float], alpha: float = 0.05) -> list[bool]:
    """Which hypotheses are rejected, in the order given; the chance of any false rejection is at most alpha.

    S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979)
    65-70.
    """
    rejected = [False] * len(p_values)
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[i] > alpha / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected
