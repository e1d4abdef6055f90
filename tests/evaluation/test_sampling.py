"""Several answers at the served temperature: the same again from the cache, and intervals by item."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.answers import AnswerCache
from evaluation.sampling import bootstrap, compare_samples, sample_answers, sampled_decoding
from models.loading import load_base


def item(name: str, text: str, scorer: str = "exact") -> EvalItem:
    choices = ("a", "b") if scorer == "choice" else ()
    data = {"id": name, "suite": "s", "messages": [{"role": "user", "content": text}], "reference": "a"}
    return EvalItem.model_validate({**data, "scorer": scorer, "choices": choices, "max_new_tokens": 6})


ITEMS = [item("one", "Where is my order?"), item("two", "Can I return a lamp that I have used for a week?")]


@pytest.fixture(scope="module")
def base(tiny_base: Path):
    return load_base(tiny_base)


def test_samples_differ_from_each_other_and_come_from_the_cache_the_second_time(base, tmp_path):
    loads = []

    def ask():
        loads.append(1)
        return (*base, None)

    def sample(seed: int, folder: str, items=ITEMS, batch: int = 4):
        cache = AnswerCache(tmp_path / folder, "m", sampled_decoding(1.5, seed))
        return sample_answers(ask, items, k=3, temperature=1.5, seed=seed, batch=batch, cache=cache)

    first = sample(1, "a")
    assert [len(answers) for answers in first] == [3, 3]
    assert len({text for answers in first for text in answers}) > 3
    asked = len(loads)
    assert sample(1, "a") == first
    assert len(loads) == asked
    assert sample(2, "a") != first  # another seed, another key of the same cache
    assert sample(1, "b", items=ITEMS[::-1], batch=1) == first[::-1]  # whatever is asked beside it


def test_a_choice_or_a_temperature_of_nothing_is_refused(base, tmp_path):
    cache = AnswerCache(tmp_path, "m", sampled_decoding(1.0, 0))
    rest = {"k": 2, "seed": 0, "batch": 2, "cache": cache}
    with pytest.raises(EvaluationError, match="scorer `choice`"):
        sample_answers(lambda: (*base, None), [item("c", "x", "choice")], temperature=1.0, **rest)
    with pytest.raises(EvaluationError, match="nothing to sample"):
        sample_answers(lambda: (*base, None), ITEMS, temperature=0.0, **rest)


def test_the_interval_goes_by_items_not_by_answers():
    one_each = [[float(i % 2)] * 20 for i in range(30)]  # twenty equal answers to an item say no more than one
    change, unsure = compare_samples([[0.0] * 20] * 30, one_each)
    assert change.mean == pytest.approx(0.5)
    assert 0.3 < change.upper - change.lower < 0.45  # 2 x 1.96 x .5 / sqrt(30) = .36
    assert unsure == 0.0
    assert compare_samples([[1.0, 1.0]], [[1.0, 0.0]])[1] == 1.0


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = random.Random(3)
    held = 0
    for run in range(200):
        found = bootstrap([float(rng.random() < 0.3) for _ in range(80)], seed=run, resamples=300)
        held += found.lower <= 0.3 <= found.upper
    assert 0.88 <= held / 200 <= 0.99
    with pytest.raises(ValueError, match="needs a value"):
        bootstrap([])
