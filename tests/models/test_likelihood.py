"""Likelihoods over trees of shared tokens equal those of each answer alone behind its prompt."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.likelihood import Segment, common_prefix, reference_nll, token_nlls, tree
from models.loading import load_base
from models.packing import TokenRow, pack, token_nll


@pytest.fixture(scope="module")
def base(tiny_base: Path):
    return load_base(tiny_base)


def alone(model, prompt, answer) -> float:
    with torch.no_grad():
        return float(token_nll(model, pack([TokenRow(prompt, answer)])).sum())


START = (5, 6, 7, 8, 9, 10, 11, 12, 13)
PROMPTS = [(*START, 20, 21), (*START, 22), (*START, 20, 23, 24, 25)]
ANSWERS = [[(30,), (31, 32), (33, 34, 35)], [(30, 31, 32)], [(36,), (37,)]]


@pytest.mark.parametrize("max_tokens", [1, 24, 512])
def test_answers_in_a_tree_equal_answers_alone(base, max_tokens):
    model, _ = base
    found = token_nlls(model, PROMPTS, ANSWERS, max_tokens=max_tokens)
    for prompt, answers, values in zip(PROMPTS, ANSWERS, found, strict=True):
        assert values == pytest.approx([alone(model, prompt, answer) for answer in answers], abs=1e-4)


def test_prompts_without_a_common_beginning_share_nothing(base):
    model, _ = base
    prompts, answers = [(1, 2, 3), (4, 5, 6, 7)], [[(8, 9), (10, 11)], [(12,)]]
    found = token_nlls(model, prompts, answers, max_tokens=512)
    wanted = [[alone(model, p, a) for a in several] for p, several in zip(prompts, answers, strict=True)]
    assert found[0] == pytest.approx(wanted[0], abs=1e-4)
    assert found[1] == pytest.approx(wanted[1], abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4))
def test_any_set_of_answers_equals_each_alone(base, seed, count):
    model, _ = base
    draw = torch.Generator().manual_seed(seed)

    def some(most: int) -> tuple[int, ...]:
        length = int(torch.randint(1, most + 1, (1,), generator=draw))
        return tuple(torch.randint(3, 60, (length,), generator=draw).tolist())

    prompts = [(*START, *some(5)) for _ in range(count)]
    answers = [[some(4) for _ in range(1 + i % 3)] for i in range(count)]
    found = token_nlls(model, prompts, answers, max_tokens=40)
    for prompt, several, values in zip(prompts, answers, found, strict=True):
        assert values == pytest.approx([alone(model, prompt, one) for one in several], abs=1e-4)


def test_a_token_sees_its_ancestors_and_its_own_past_only():
    laid = tree([Segment((1, 2), -1), Segment((3,), 0), Segment((4, 5), 1), Segment((6,), 1), Segment((7,), 0)])
    assert laid.positions.tolist() == [[0, 1, 2, 3, 4, 3, 2]]
    seen = [[place for place in range(7) if row[place]] for row in laid.mask[0, 0].tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 5], [0, 1, 6]]


def test_a_common_beginning_leaves_every_prompt_a_token():
    assert common_prefix([START, START]) == len(START) - 1
    assert common_prefix([(*START, 1), (*START, 2)]) == len(START)
    assert common_prefix([(1, 2, 3), (1, 2, 4)]) == 0  # too short to be worth it
    assert common_prefix([START]) == 0


def test_every_conversation_needs_a_reference(base):
    model, tokenizer = base
    with pytest.raises(ValueError, match="1 references for 2"):
        reference_nll(model, tokenizer, [[{"role": "user", "content": "a"}]] * 2, ["b"])
