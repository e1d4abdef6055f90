"""Drift on synthetic embeddings: 14 topics as directions in 48 dimensions, 200 people, 600 reference prompts."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import InputError, NotFoundError
from configs.schema import DriftSection
from monitoring.drift import mix
from monitoring.drift.monitor import DriftMonitor
from monitoring.drift.naming import densest_region, distinguishing_terms
from monitoring.drift.novelty import NoveltyTest, log_e_value, nearest_distance, window_p_value
from monitoring.drift.reference import build_reference, forget, load_reference, save_reference, select_prompts

CONFIG = DriftSection()
TOPICS = 14
DIMENSIONS = 48
CENTRES = np.random.default_rng(11).standard_normal((TOPICS + 1, DIMENSIONS))
WORDS = [
    "parcel",
    "refund",
    "invoice",
    "size",
    "return",
    "voucher",
    "login",
    "address",
    "payment",
    "stock",
    "warranty",
    "delivery",
    "colour",
    "newsletter",
]
NEW = TOPICS


def traffic(seed, count, new_share=0.0):
    """(prompts, embeddings, principals, topics); topic 14 is new."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, TOPICS, count)
    topics[rng.random(count) < new_share] = NEW
    vectors = CENTRES[topics] + 0.9 * rng.standard_normal((count, DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    prompts = [f"{'gift card' if t == NEW else WORDS[t]} question {i}" for i, t in enumerate(topics)]
    return prompts, vectors.astype(np.float32), [f"user-{u}" for u in rng.integers(0, 200, count)], topics


@pytest.fixture(scope="module")
def reference():
    prompts, vectors, people, _ = traffic(1, 600)
    rows = list(zip(people, prompts, strict=True))
    kept = select_prompts(rows, CONFIG)
    where = {row: i for i, row in enumerate(rows)}
    return build_reference(kept, vectors[[where[row] for row in kept]], CONFIG)


def test_selection_takes_each_text_once_and_few_of_each_person():
    rows = [("a", "Hello  there"), ("a", "hello there"), ("b", "hello there"), ("b", "   ")]
    rows += [("c", f"question {i}") for i in range(9)]
    kept = select_prompts(rows, CONFIG)
    assert kept[:2] == [("a", "hello there"), ("b", "hello there")]
    assert [prompt for who, prompt in kept if who == "c"] == [f"question {i}" for i in range(4, 9)]


def test_too_small_a_reference_is_refused():
    with pytest.raises(InputError, match="reference_min"):
        build_reference([("a", "x")] * 499, np.ones((499, 3)), CONFIG)


def test_the_order_of_rows_does_not_change_the_reference(reference):
    rows = list(zip(reference.principals, reference.prompts, strict=True))[::-1]
    again = build_reference(rows, reference.embeddings[::-1], CONFIG)
    assert again.digest == reference.digest
    assert np.allclose(again.embeddings, reference.embeddings, atol=1e-6)
    assert again.local.threshold == pytest.approx(reference.local.threshold)


def test_a_saved_reference_gives_the_same_answers(reference, tmp_path):
    path = save_reference(reference, tmp_path)
    again = load_reference(tmp_path, reference.digest)
    assert again.prompts == reference.prompts
    assert again.novelty.threshold == reference.novelty.threshold
    prompts, vectors, people, _ = traffic(2, 150, new_share=0.3)
    found = DriftMonitor(reference, CONFIG).observe(prompts, vectors, people)
    assert DriftMonitor(again, CONFIG).observe(prompts, vectors, people) == found
    os.utime(path, (0, 0))
    assert save_reference(reference, tmp_path) == path
    assert path.stat().st_mtime > 0  # in use again
    with pytest.raises(NotFoundError):
        load_reference(tmp_path, "0" * 64)


def test_a_person_can_be_forgotten(reference):
    less = forget(reference, {"user-7"}, CONFIG)
    assert "user-7" not in less.principals
    assert less.digest != reference.digest


def test_stationary_traffic_raises_no_alarm(reference):
    prompts, vectors, people, _ = traffic(3, 3000)
    assert DriftMonitor(reference, CONFIG).observe(prompts, vectors, people) == []


def test_a_new_topic_at_thirty_percent_is_found_and_named(reference):
    prompts, vectors, _, topics = traffic(4, 200, new_share=0.3)
    first, *more = DriftMonitor(reference, CONFIG).observe(prompts, vectors)
    assert first.detail["prompts_seen"] <= 100
    assert "gift card" in first.name
    is_new = {p: t == NEW for p, t in zip(prompts, topics, strict=True)}
    assert len(first.detail["examples"]) == 5
    assert all(is_new[p] for p in first.detail["examples"])
    assert more == [], "one new topic is one finding"
    json.dumps(first.model_dump(mode="json"))


def test_growth_inside_the_domain_is_found(reference):
    prompts, vectors, _, topics = traffic(5, 1500)
    keep = np.flatnonzero((topics == 3) | (np.arange(1500) % 3 > 0))
    found = DriftMonitor(reference, CONFIG).observe(
        ["size question" if topics[i] == 3 else prompts[i] for i in keep for _ in range(1 + 4 * int(topics[i] == 3))],
        np.vstack([vectors[i] for i in keep for _ in range(1 + 4 * int(topics[i] == 3))]),
    )
    assert found
    assert found[0].test in ("local_share", "mix_shift")
    assert "size" in found[0].name


def test_the_state_goes_on_where_it_stopped(reference):
    prompts, vectors, people, _ = traffic(6, 220, new_share=0.15)
    whole = DriftMonitor(reference, CONFIG)
    expected = whole.observe(prompts, vectors, people)
    state, found = None, []
    for start in range(0, 220, 37):
        part = slice(start, start + 37)
        monitor = DriftMonitor(reference, CONFIG, state)
        found += monitor.observe(prompts[part], vectors[part], people[part])
        state = json.loads(json.dumps(monitor.state()))
    assert [f.detail["prompts_seen"] for f in found] == [f.detail["prompts_seen"] for f in expected]
    assert [f.name for f in found] == [f.name for f in expected]


def test_a_state_of_another_reference_begins_anew(reference):
    monitor = DriftMonitor(reference, CONFIG, {"version": 1, "reference": "other", "seen": 9, "log_s": 99.0})
    assert monitor.state()["seen"] == 0
    with pytest.raises(InputError, match="version"):
        DriftMonitor(reference, CONFIG, {"version": 99})


def test_one_person_cannot_raise_an_alarm_alone(reference):
    prompts, vectors, _, _ = traffic(7, 200, new_share=1.0)
    assert DriftMonitor(reference, CONFIG).observe(prompts, vectors, ["one-user"] * 200) == []


def ask_around(reference, state, seed, count, people, new_share=0.0):
    """`count` prompts of `people` regulars in looks of 100, as the watch asks: `(findings, state as stored)`."""
    prompts, vectors, _, _ = traffic(seed, count, new_share)
    who = [f"regular-{u}" for u in np.random.default_rng(seed).integers(0, people, count)]
    found = []
    for start in range(0, count, 100):
        part = slice(start, start + 100)
        monitor = DriftMonitor(reference, CONFIG, state)
        found += monitor.observe([f"{p} of {seed}" for p in prompts[part]], vectors[part], who[part])
        state = json.loads(json.dumps(monitor.state()))
    return found, state


def test_regulars_who_used_up_their_quota_are_heard_again(reference):
    few = 40
    assert few < CONFIG.window // CONFIG.max_per_principal
    quiet, state = ask_around(reference, None, 20, 3000, few)
    assert quiet == []
    state.pop("asked", None)  # as a state of before quotas went by what was asked
    found, _ = ask_around(reference, state, 21, 1000, few, new_share=0.5)
    assert any("gift card" in f.name for f in found)


def test_a_person_counts_no_more_than_the_quota_in_a_window_of_prompts_asked(reference):
    for people in (1, 10, 40):
        _, state = ask_around(reference, None, 22, 3000, people)
        periods = 3000 // CONFIG.window
        assert state["seen"] <= periods * people * CONFIG.max_per_principal


def test_what_is_set_aside_costs_nobody_anything(reference):
    found, state = ask_around(reference, None, 23, 1000, 200, new_share=0.5)
    assert any("gift card" in f.name for f in found)
    before = state["seen"], state["people"]
    prompts, vectors, _, _ = traffic(24, 60, new_share=1.0)
    vectors = np.repeat(CENTRES[NEW : NEW + 1], 60, axis=0) / np.linalg.norm(CENTRES[NEW])
    state["asked"] = 0
    monitor = DriftMonitor(reference, CONFIG, state)
    assert monitor.observe(prompts, vectors, [f"regular-{n % 9}" for n in range(60)]) == []
    assert (monitor.state()["seen"], monitor.state()["people"]) == before


def test_novelty_without_a_group_is_said_once_and_a_topic_after_it_still_found(reference):
    prompts, vectors, _, _ = traffic(8, 900, new_share=0.0)
    rng = np.random.default_rng(9)
    odd = rng.random(900) < 0.3
    vectors[odd] = rng.standard_normal((int(odd.sum()), DIMENSIONS))
    monitor = DriftMonitor(reference, CONFIG)
    found = monitor.observe(prompts, vectors)
    assert [f.name for f in found] == ["unfamiliar prompts of many kinds"]
    assert not found[0].detail["named"]
    prompts, vectors, _, _ = traffic(10, 200, new_share=0.4)
    assert any("gift card" in f.name for f in monitor.observe(prompts, vectors))


def test_bad_embeddings_are_refused(reference):
    monitor = DriftMonitor(reference, CONFIG)
    assert monitor.observe([], np.zeros((0, DIMENSIONS))) == []
    for bad in (np.zeros((2, DIMENSIONS)), np.full((1, DIMENSIONS), np.nan), np.zeros((1, 3))):
        with pytest.raises(InputError, match="embeddings"):
            monitor.observe(["one"], bad)


def test_the_e_value_is_one_on_average_over_uniform_p():
    p = (np.arange(2_000_000) + 0.5) / 2_000_000
    assert np.exp(log_e_value(p)).mean() == pytest.approx(1.0, abs=0.02)


@given(st.lists(st.floats(0, 2), min_size=1, max_size=40), st.floats(0, 2), st.text(max_size=8))
def test_p_values_are_in_range_and_fall_with_the_score(scores, score, text):
    test = NoveltyTest(np.sort(np.array(scores)), 10.0)
    p = test.p_value(score, text)
    assert 0 < p <= 1
    assert test.p_value(score + 1.0, text) <= p
    assert test.p_value(score, text) == p


def test_conformal_p_values_of_exchangeable_scores_are_uniform():
    rng = np.random.default_rng(0)
    values = []
    for i in range(3000):
        scores = np.round(rng.random(20), 1)  # many ties
        values.append(NoveltyTest(np.sort(scores[1:]), 10.0).p_value(float(scores[0]), str(i)))
    assert np.histogram(values, bins=10, range=(0, 1))[0] == pytest.approx(300, abs=70)


def test_a_person_is_not_their_own_neighbour():
    rows = np.eye(4, dtype=np.float32)[[0, 0, 1]]
    alone = nearest_distance(rows, rows, 1, owners=(["a", "a", "b"], ["a", "a", "b"]))
    assert alone[0] == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(50, 300), st.integers(60, 2000))
def test_window_p_values_fall_and_begin_at_one(window, calibration):
    values = [window_p_value(k, window, calibration) for k in range(0, window + 1, 10)]
    assert values[0] == pytest.approx(1.0, abs=1e-6)
    assert all(a >= b - 1e-12 for a, b in pairwise(values))


def test_mix_shift_takes_estimated_shares_into_account():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.full(20, 3.0))
    draws = rng.dirichlet(rng.multinomial(240, truth) + 0.5, 400)
    null = mix.null_statistics(draws, 300, seed=1)
    stationary = [mix.p_value(float(mix.statistic(rng.multinomial(300, d), draws.mean(axis=0))), null) for d in draws]
    assert np.mean(np.array(stationary) < 0.05) < 0.10
    moved = 0.7 * truth + 0.3 * np.eye(20)[4]
    assert mix.p_value(float(mix.statistic(rng.multinomial(300, moved), draws.mean(axis=0))), null) < 0.001


def test_terms_say_what_is_new_and_do_not_repeat_words():
    texts = [f"where is my gift card {i}" for i in range(5)] + ["redeem a gift card", "gift cards balance"]
    terms = distinguishing_terms(texts, ["where is my parcel", "card declined", "<EMAIL_1> return"] * 10)
    assert terms[0] == "gift card"
    assert "gift" not in terms[1:]
    assert distinguishing_terms([], []) == ()


def test_no_candidates_no_region():
    assert densest_region(np.zeros((3, 2)), np.zeros((3, 2)), np.array([], dtype=int)) is None
