from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_samples import snapshot_rows

from configs.schema import TrainingSection
from data_contracts.records import Message
from models.packing import TokenRow
from training.data import tokenise
from training.packing import schedule, split_step
from training.sft import learning_rate


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def test_only_the_completion_and_its_end_of_turn_are_supervised(tokenizer):
    rows = snapshot_rows()
    done = tokenise(rows, tokenizer, 128)
    first = done.rows[0]
    assert tokenizer.decode(first.prompt) == "<|im_start|>user\nWhere is my parcel?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(first.completion) == "It left the warehouse.<|im_end|>"
    assert done.tokens == sum(len(r.prompt) + len(r.completion) for r in done.rows)
    assert (done.shortened, done.skipped) == ((), ())


def test_a_long_row_loses_its_oldest_turns_but_never_system_question_or_answer(tokenizer):
    row = snapshot_rows()[0]
    turns = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="An old question, " * 30),
        Message(role="assistant", content="An old answer."),
        *row.messages,
    ]
    long = row.model_copy(update={"messages": tuple(turns)})
    done = tokenise([long], tokenizer, 64)
    text = tokenizer.decode(done.rows[0].prompt)
    assert "Be brief." in text
    assert "Where is my parcel?" in text
    assert "old question" not in text
    assert tokenizer.decode(done.rows[0].completion) == "It left the warehouse.<|im_end|>"
    assert done.shortened == (row.digest,)
    assert len(done.rows[0]) <= 64


def test_a_row_that_cannot_fit_is_skipped_and_named(tokenizer):
    rows = snapshot_rows()
    endless = rows[1].model_copy(update={"completion": "very long " * 100})
    done = tokenise([rows[0], endless], tokenizer, 64)
    assert len(done.rows) == 1
    assert done.skipped == (endless.digest,)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 60),
    epochs=st.floats(0.1, 4.0),
    per_step=st.integers(1, 16),
    seed=st.integers(0, 5),
)
def test_a_schedule_shows_every_row_equally_often_in_even_steps(count: int, epochs: float, per_step: int, seed: int):
    steps = schedule(count, epochs=epochs, rows_per_step=per_step, seed=seed)
    assert steps == schedule(count, epochs=epochs, rows_per_step=per_step, seed=seed)
    seen = Counter(i for step in steps for i in step)
    assert sum(seen.values()) == max(1, round(count * epochs))
    assert max(seen.values()) - min(seen.get(i, 0) for i in range(count)) <= 1
    sizes = [len(step) for step in steps]
    assert max(sizes) <= per_step
    assert max(sizes) - min(sizes) <= 1


def test_another_seed_is_another_order():
    assert schedule(30, epochs=1, rows_per_step=5, seed=1) != schedule(30, epochs=1, rows_per_step=5, seed=2)


@given(lengths=st.lists(st.integers(2, 90), min_size=1, max_size=20))
def test_a_step_is_split_without_losing_a_row(lengths: list[int]):
    rows = [TokenRow((index,) * (length - 1), (0,)) for index, length in enumerate(lengths)]
    groups = split_step(rows, 64)
    assert sorted(r.prompt for g in groups for r in g) == sorted(r.prompt for r in rows)
    assert all(sum(map(len, g)) <= 64 or len(g) == 1 for g in groups)


def test_the_learning_rate_warms_up_and_decays_to_just_above_zero():
    config = TrainingSection(learning_rate=1e-3, warmup_share=0.1)
    rates = [learning_rate(step, 50, config) for step in range(50)]
    assert rates[0] == pytest.approx(2e-4)
    assert max(rates) == pytest.approx(1e-3)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 3e-5
    assert learning_rate(0, 1, config) == pytest.approx(1e-3)
