from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_samples import snapshot_rows

from configs.errors import TrainingError
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


def _talk(question: str):
    turns = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="An old question, " * 30),
        Message(role="assistant", content="An old answer."),
        Message(role="user", content=question),
    ]
    return snapshot_rows()[0].model_copy(update={"messages": tuple(turns)})


def test_what_happens_to_a_long_row_is_a_setting(tokenizer):
    short, talk = snapshot_rows()[1], _talk("Where is my parcel?")
    wordy = _talk("I ordered a lamp. " * 40 + "Where is my parcel?").model_copy(update={"digest": "e" * 64})
    rows = [short, talk, wordy]
    assert tokenise(rows, tokenizer, 4096, long_rows="fail").shortened == ()
    turns = tokenise(rows, tokenizer, 64, long_rows="turns")
    assert (len(turns.rows), turns.shortened, turns.skipped) == (2, (talk.digest,), (wordy.digest,))
    drop = tokenise(rows, tokenizer, 64, long_rows="drop")
    assert (drop.digests, drop.shortened, drop.skipped) == ((short.digest,), (), (talk.digest, wordy.digest))
    with pytest.raises(TrainingError, match="2 rows are longer") as caught:
        tokenise(rows, tokenizer, 64, long_rows="fail")
    assert wordy.digest[:12] in str(caught.value.where)
    assert "lamp" not in str(caught.value)


def test_truncation_keeps_the_template_whole_and_cuts_only_the_left_of_the_last_message(tokenizer):
    wordy = _talk("I ordered a lamp. " * 40 + "Where is my parcel?")
    done = tokenise([wordy], tokenizer, 64, long_rows="truncate")
    assert (done.shortened, done.skipped) == ((wordy.digest,), ())
    prompt = tokenizer.decode(done.rows[0].prompt)
    start, end = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.startswith(start)
    assert prompt.endswith(f"Where is my parcel?{end}")
    kept = prompt.removeprefix(start).removesuffix(end)
    assert kept.split()[0] in {"I", "ordered", "a", "lamp."}, "from the start of a word"
    assert 56 <= len(done.rows[0]) <= 64, "no more is cut than must be"
    assert tokenizer.decode(done.rows[0].completion) == "It left the warehouse.<|im_end|>"
    one_word = tokenise([_talk("x" * 400)], tokenizer, 64, long_rows="truncate")
    assert len(one_word.rows[0]) <= 64
    hopeless = _talk("Hello?").model_copy(update={"completion": "very long " * 100})
    assert tokenise([hopeless], tokenizer, 64, long_rows="truncate").skipped == (hopeless.digest,)


def test_a_question_and_its_answer_are_left_out_together(tokenizer):
    """A template that wants roles to alternate refuses a conversation that begins with an answer."""
    row = snapshot_rows()[0]
    said = [Message(role=role, content=f"{n} words, " * 8) for n, role in enumerate(["user", "assistant"] * 3)]
    done = tokenise([row.model_copy(update={"messages": (*said, *row.messages)})], tokenizer, 150)
    roles = [part.split("\n")[0] for part in tokenizer.decode(done.rows[0].prompt).split("<|im_start|>")[1:]]
    assert roles == ["user", "assistant", "user", "assistant"]
    assert "4 words" in tokenizer.decode(done.rows[0].prompt)


@pytest.mark.parametrize("policy", ["turns", "truncate"])
def test_a_system_message_stays_wherever_it_stands(tokenizer, policy: str):
    last = "Where is my parcel?" if policy == "turns" else "I ordered a lamp. " * 40 + "Where is my parcel?"
    said = [
        ("user", "An old question, " * 30),
        ("assistant", "An old answer."),
        ("system", "Be brief."),
        ("user", last),
        ("system", "Be kind."),
    ]
    talk = tuple(Message(role=role, content=text) for role, text in said)
    done = tokenise([snapshot_rows()[0].model_copy(update={"messages": talk})], tokenizer, 64, long_rows=policy)
    prompt = tokenizer.decode(done.rows[0].prompt)
    assert [part.split("\n")[0] for part in prompt.split("<|im_start|>")[1:]] == [
        "system",
        "user",
        "system",
        "assistant",
    ]
    assert all(text in prompt for text in ("Be brief.", "Where is my parcel?", "Be kind."))
    only = talk[2].model_copy(update={"content": "Be brief. " * 60})
    alone = snapshot_rows()[0].model_copy(update={"messages": (only,)})
    assert tokenise([alone], tokenizer, 64, long_rows=policy).skipped == (alone.digest,)


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
