"""Protected prompts: a few are compared exactly, very many by MinHash; the same ones are found."""

from __future__ import annotations

import random

import pytest

from configs.curation import DecontaminationRule
from data_contracts.curation.rules import contaminated
from data_contracts.curation.rules.contaminated import Protected

RULE = DecontaminationRule()


def prompts(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)
    words = [f"word{n}" for n in range(2000)]
    return [" ".join(rng.choices(words, k=rng.randint(8, 30))) + "?" for _ in range(count)]


@pytest.mark.parametrize("limit", [10, 10_000])
def test_many_protected_prompts_are_all_found_and_others_pass(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contaminated, "LARGE", limit)
    known = prompts(1, 300)
    protected = Protected(known, known[:20], RULE)
    edited = [text.replace("?", " please?") for text in known]
    shouted = [text.upper() for text in known]
    inside = [f"first of all hello. {text} and thanks" for text in known]
    others = prompts(2, 300)
    assert protected.overlaps(known) == ["exact"] * 300
    assert all(protected.overlaps(shouted))
    assert all(protected.overlaps(edited))
    assert all(protected.overlaps(inside))
    assert protected.overlaps(others) == [None] * 300
