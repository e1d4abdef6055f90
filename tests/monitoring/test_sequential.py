import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import InputError
from monitoring.sequential import EProcess, RateBound, SampleRatio, promotion_process

events = st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), max_size=60)


def run(process, sequence):
    for x, q in sequence:
        process.update(x, q)
    return process


@given(st.floats(0.001, 0.999), events, st.sampled_from([(1.0, False), (1.3, True), (1.0, True)]))
def test_expected_e_value_does_not_grow_under_the_null(q, before, kind):
    """E[E_{t+1} | past] = E_t exactly at the border of the null: what Ville's inequality needs."""
    r0, mirrored = kind
    now = run(EProcess(r0, mirrored), before)
    theta = q * r0 / (q * r0 + 1 - q)
    after = []
    for x in (True, False):
        process = EProcess.from_dict(now.to_dict())
        process.update(x, q)
        after.append(process.log_e)
    expected = theta * math.exp(after[0] - now.log_e) + (1 - theta) * math.exp(after[1] - now.log_e)
    assert expected == pytest.approx(1.0, abs=1e-9)


@given(st.floats(0.01, 0.99), st.floats(0.05, 1.0))
def test_a_healthier_canary_only_lowers_the_evidence(q, r):
    theta = q * r / (q * r + 1 - q)
    up, down = EProcess(), EProcess()
    up.update(True, q)
    down.update(False, q)
    assert theta * up.e + (1 - theta) * down.e <= 1.0 + 1e-9


@given(events)
def test_state_survives_json(sequence):
    for process in (EProcess(), promotion_process(1.3)):
        run(process, sequence)
        assert EProcess.from_dict(json.loads(json.dumps(process.to_dict()))) == process
    ratio = run(SampleRatio(), sequence)
    assert SampleRatio.from_dict(json.loads(json.dumps(ratio.to_dict()))) == ratio


@given(events)
def test_order_does_not_matter(sequence):
    assert run(EProcess(), sequence).log_e == pytest.approx(run(EProcess(), sequence[::-1]).log_e, abs=1e-9)


def test_gross_harm_at_one_percent_needs_few_events():
    assert run(EProcess(), [(True, 0.01)] * 3).e > 6 / 0.05


def test_no_information_in_shares_of_zero_and_one():
    assert run(EProcess(), [(True, 1.0), (False, 0.0)]).e == pytest.approx(1.0)


@pytest.mark.parametrize("q", [-0.1, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(q):
    with pytest.raises(InputError, match="share"):
        EProcess().update(True, q)


def test_saved_state_of_another_grid_is_refused():
    with pytest.raises(InputError, match="grid"):
        EProcess.from_dict({"r0": 1.0, "mirrored": False, "log_ratios": [0.0], "events": 0})


def test_sample_ratio_is_two_sided():
    assert run(SampleRatio(), [(True, 0.1)] * 8).p < 0.001
    assert run(SampleRatio(), [(False, 0.5)] * 20).p < 0.001
    assert run(SampleRatio(), [(i % 10 == 0, 0.1) for i in range(2000)]).p > 0.5


def test_rate_bound_without_bad_requests_is_about_four_over_n():
    assert RateBound(n=0).upper == pytest.approx(1.0, abs=1e-5)
    for n in (50, 300, 2000):
        assert 3.0 / n < RateBound(n=n).upper < 3.8 / n
    assert RateBound(n=1000, bad=50).below(0.10)
    assert not RateBound(n=0).below(0.5)


@given(st.integers(1, 3000), st.floats(0, 1), st.floats(0.001, 0.999))
def test_rate_bound_agrees_with_its_test_and_covers_the_estimate(n, share, slo):
    bound = RateBound(n=n, bad=int(share * n))
    assert bound.upper >= bound.bad / n
    if bound.below(slo):
        assert bound.upper <= slo + 2e-6
    else:
        assert bound.upper >= slo - 2e-6 or bound.bad / n >= slo


def test_rate_bound_is_rarely_wrong_although_watched_on_every_request():
    rng = random.Random(5)
    wrong = 0
    for _ in range(300):
        bound = RateBound()
        for _ in range(400):
            bound.update(rng.random() < 0.10)
            if bound.below(0.10):
                wrong += 1
                break
    assert wrong / 300 <= 0.07
