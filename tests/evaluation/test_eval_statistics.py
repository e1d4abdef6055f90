"""Score bounds: known values, order, mirror symmetry, and their error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.statistics import (
    holm,
    loss_p,
    non_inferiority_power,
    paired_t_bounds,
    paired_t_power,
    required_items,
    required_items_paired_t,
    required_items_superiority,
    score_lower,
    score_upper,
    score_z,
    share_below_power,
    share_lower,
    share_upper,
    smallest_margin,
)

COUNTS = st.integers(1, 400).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n)).flatmap(
        lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(0, pair[0] - pair[1]))
    )
)


def test_zero_flips_need_133_items_at_two_points() -> None:
    assert score_lower(132, 0, 0) < -0.02
    assert score_lower(133, 0, 0) > -0.02
    assert required_items(0.02, 0.0, power=0.5) == 133


@pytest.mark.parametrize(
    ("n", "gained", "lost", "difference"), [(100, 12, 9, -0.1), (70, 3, 11, 0.05), (44, 1, 0, -0.08), (50, 0, 4, -0.2)]
)
def test_score_statistic_uses_the_constrained_maximum_likelihood(
    n: int, gained: int, lost: int, difference: float
) -> None:
    low = max(1e-9, -difference + 1e-9)
    q = np.linspace(low, (1 - difference) / 2 - 1e-9, 200_001)
    loglik = gained * np.log(q + difference) + lost * np.log(q) + (n - gained - lost) * np.log(1 - 2 * q - difference)
    best = float(q[np.argmax(loglik)])
    expected = (gained - lost - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))
    assert score_z(n, gained, lost, difference) == pytest.approx(expected, rel=2e-3)


@given(COUNTS)
def test_bounds_enclose_the_estimate_and_mirror(counts: tuple[int, int, int]) -> None:
    n, gained, lost = counts
    low, high = score_lower(n, gained, lost), score_upper(n, gained, lost)
    assert -1.0 <= low <= (gained - lost) / n + 1e-9
    assert (gained - lost) / n - 1e-9 <= high <= 1.0
    assert score_lower(n, lost, gained) == pytest.approx(-high, abs=1e-9)


@given(COUNTS, st.floats(0.01, 0.4))
def test_a_stricter_level_gives_a_lower_bound(counts: tuple[int, int, int], alpha: float) -> None:
    assert score_lower(*counts, alpha=alpha / 2) <= score_lower(*counts, alpha=alpha) + 1e-9


@given(COUNTS)
def test_losing_one_more_item_never_raises_the_bound(counts: tuple[int, int, int]) -> None:
    n, gained, lost = counts
    if gained + lost < n:
        assert score_lower(n, gained, lost + 1) <= score_lower(n, gained, lost) + 1e-9
        assert score_lower(n, gained + 1, lost) >= score_lower(n, gained, lost) - 1e-9


@given(COUNTS)
def test_the_bound_solves_the_score_equation(counts: tuple[int, int, int]) -> None:
    low = score_lower(*counts)
    if -0.999 < low < 0.999:
        assert score_z(*counts, low) == pytest.approx(1.6449, abs=1e-3)


def test_counts_that_cannot_be_are_refused() -> None:
    for bad in ((0, 0, 0), (10, 6, 5), (10, -1, 0)):
        with pytest.raises(ValueError, match="paired counts"):
            score_lower(*bad)
    with pytest.raises(ValueError, match="alpha"):
        score_lower(10, 0, 0, alpha=0.7)


def _rates(n: int, gain: float, loss: float, runs: int, margin: float) -> float:
    draws = np.random.default_rng(5).multinomial(n, [gain, loss, 1 - gain - loss], size=runs)
    passed: dict[tuple[int, int], bool] = {}
    count = 0
    for gained, lost, _ in draws.tolist():
        key = (gained, lost)
        if key not in passed:
            passed[key] = score_lower(n, gained, lost) > -margin
        count += passed[key]
    return count / runs


@pytest.mark.parametrize(("n", "margin", "discordance"), [(310, 0.02, 0.02), (100, 0.10, 0.15), (400, 0.05, 0.20)])
def test_a_candidate_worse_by_the_margin_passes_at_most_as_often_as_alpha_says(
    n: int, margin: float, discordance: float
) -> None:
    loss = (discordance + margin) / 2
    assert _rates(n, discordance - loss, loss, 4000, margin) <= 0.065


def test_at_the_smallest_size_the_level_is_that_of_seeing_no_flip() -> None:
    # The one place where the score test is visibly above alpha: 0.98 ** 133 = .068 instead of .05.
    assert _rates(133, 0.0, 0.02, 4000, 0.02) == pytest.approx(0.98**133, abs=0.012)


def test_superiority_is_rarely_claimed_without_a_difference() -> None:
    assert _rates(70, 0.1, 0.1, 4000, 0.0) <= 0.06


@pytest.mark.parametrize(("n", "margin", "discordance"), [(300, 0.05, 0.10), (120, 0.10, 0.15), (1000, 0.02, 0.05)])
def test_the_planned_power_is_what_a_simulation_finds(n: int, margin: float, discordance: float) -> None:
    planned = non_inferiority_power(n, margin, discordance)
    assert _rates(n, discordance / 2, discordance / 2, 4000, margin) == pytest.approx(planned, abs=0.05)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.3), st.floats(0.0, 0.4), st.floats(0.6, 0.99))
def test_required_items_is_the_smallest_that_has_the_power(margin: float, discordance: float, power: float) -> None:
    n = required_items(margin, discordance, power=power)
    assert non_inferiority_power(n, margin, discordance) >= power
    assert n == 1 or non_inferiority_power(n - 1, margin, discordance) < power


def test_required_items_is_near_the_rule_of_thumb() -> None:
    assert required_items(0.05, 0.1, power=1 - 0.05 / 6) == pytest.approx(16 * 0.1 / 0.05**2, rel=0.1)
    with pytest.raises(ValueError, match="margin above 0"):
        required_items(0.0, 0.1)


def test_smallest_margin_inverts_required_items() -> None:
    margin = smallest_margin(200, 0.1, power=0.9)
    assert required_items(margin + 1e-6, 0.1, power=0.9) <= 200


def test_superiority_needs_a_few_changing_items() -> None:
    assert required_items_superiority(0.0, 1.0) == 3
    assert required_items_superiority(0.0, 0.25) == 12
    assert required_items_superiority(0.3, 0.25) is None


def test_paired_t_bounds() -> None:
    mean, low, high = paired_t_bounds([0.1, 0.2, 0.3, 0.4])
    assert mean == pytest.approx(0.25)
    assert high - mean == pytest.approx(mean - low)
    assert mean - low == pytest.approx(2.3534 * math.sqrt(0.05 / 3 / 4), rel=1e-3)
    with pytest.raises(ValueError, match="two"):
        paired_t_bounds([1.0])


# --- shares, likelihoods, slices --------------------------------------------------------------------


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.01, 0.2))
def test_clopper_pearson_encloses_and_has_its_level(count: tuple[int, int], alpha: float) -> None:
    from scipy.stats import binom

    k, n = count
    low, high = share_lower(k, n, alpha), share_upper(k, n, alpha)
    assert 0.0 <= low <= k / n <= high <= 1.0
    assert low == pytest.approx(1.0 - share_upper(n - k, n, alpha))
    if k < n:
        assert float(binom.cdf(k, n, high)) == pytest.approx(alpha, abs=1e-6), "the bound is where k or fewer are rare"
        assert share_upper(k + 1, n, alpha) >= high


@pytest.mark.parametrize("true", [0.01, 0.05, 0.3])
def test_the_exact_upper_bound_covers_at_least_as_often_as_it_says(true: float) -> None:
    from scipy.stats import binom

    covered = sum(float(binom.pmf(k, 130, true)) for k in range(131) if share_upper(k, 130) >= true)
    assert 0.95 <= covered <= 1.0


def test_shares_that_cannot_be_are_refused() -> None:
    assert share_upper(0, 100) == pytest.approx(1 - 0.05**0.01)
    assert (share_upper(5, 5), share_lower(0, 5)) == (1.0, 0.0)
    for k, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="not a share"):
            share_upper(k, n)
    with pytest.raises(ValueError, match="alpha"):
        share_lower(1, 2, alpha=0.6)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 250), st.floats(0.02, 0.5), st.floats(1e-6, 0.3))
def test_the_power_of_a_limit_is_the_chance_to_stay_below_it(n: int, limit: float, expected: float) -> None:
    from scipy.stats import binom

    direct = sum(float(binom.pmf(k, n, expected)) for k in range(n + 1) if share_upper(k, n) < limit)
    assert share_below_power(n, limit, expected) == pytest.approx(direct, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40), st.floats(-3, 3))
def test_t_bounds_enclose_the_mean_and_move_with_the_data(changes: list[float], shift: float) -> None:
    mean, low, high = paired_t_bounds(changes)
    assert low <= mean <= high
    moved = paired_t_bounds([x + shift for x in changes])
    assert moved == pytest.approx((mean + shift, low + shift, high + shift), abs=1e-9)
    mirrored = paired_t_bounds([-x for x in changes])
    assert mirrored == pytest.approx((-mean, -high, -low), abs=1e-9)


def test_the_planned_power_of_the_t_test_is_what_a_simulation_finds() -> None:
    n, margin, sd = 60, 0.2, 0.5
    draws = np.random.default_rng(1).normal(0.0, sd, size=(4000, n))
    low = draws.mean(axis=1) - 1.6711 * draws.std(axis=1, ddof=1) / math.sqrt(n)  # t(.95, 59)
    assert float((low > -margin).mean()) == pytest.approx(paired_t_power(n, margin, sd), abs=0.02)
    assert paired_t_power(1, margin, sd) == paired_t_power(50, 0.0, sd) == 0.0
    assert paired_t_power(100_000, 0.5, 0.1) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.1, 2.0), st.floats(0.6, 0.99))
def test_required_items_of_the_t_test_is_the_smallest_with_the_power(margin: float, sd: float, power: float) -> None:
    n = required_items_paired_t(margin, sd, power=power)
    assert paired_t_power(n, margin, sd) >= power
    assert n == 2 or paired_t_power(n - 1, margin, sd) < power


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_exact(gained: int, lost: int) -> None:
    from scipy.stats import binom

    assert loss_p(gained, lost) == pytest.approx(float(binom.sf(lost - 1, gained + lost, 0.5)), abs=1e-12)


@given(st.lists(st.floats(0.0, 1.0), max_size=30), st.floats(0.01, 0.2))
def test_holm_rejects_between_bonferroni_and_the_plain_level(p_values: list[float], alpha: float) -> None:
    rejected = holm(p_values, alpha)
    for p, said in zip(p_values, rejected, strict=True):
        assert said or p > alpha / len(p_values)
        assert not said or p <= alpha
    if any(rejected):
        assert max(p for p, said in zip(p_values, rejected, strict=True) if said) <= min(
            (p for p, said in zip(p_values, rejected, strict=True) if not said), default=1.0
        )


def test_holm_on_a_known_case() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []
