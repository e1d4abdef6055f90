"""Replay: the base's own answers, asked once, whole sentences only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_contracts.records import Message
from training.replay import answer_prompts, whole_sentences


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("One. Two and th", "One."),
        ("First line\n- second li", "First line"),
        ("no end at all", ""),
        ('He said "no." Then he', 'He said "no."'),
        ("Version 2.5 is", ""),
    ],
)
def test_an_answer_that_was_cut_off_ends_at_a_whole_sentence(answer: str, kept: str) -> None:
    assert whole_sentences(answer) == kept


def ask(base: Path, tmp_path: Path, prompts: list[str], seen: list[tuple[int, int]]) -> list[str]:
    return answer_prompts(
        base_path=base,
        base_digest="d" * 64,
        prompts=[(Message(role="user", content=p),) for p in prompts],
        max_new_tokens=6,
        batch=2,
        cache_dir=tmp_path / "cache",
        work_dir=tmp_path / "work",
        threads=1,
        progress=lambda done, total: seen.append((done, total)),
    )


def test_answers_are_in_order_and_only_new_prompts_are_asked(tiny_base: Path, tmp_path: Path) -> None:
    first: list[tuple[int, int]] = []
    answers = ask(tiny_base, tmp_path, ["a", "b", "c"], first)
    assert len(answers) == 3
    assert first[-1] == (3, 3)
    second: list[tuple[int, int]] = []
    for path in (tmp_path / "cache").iterdir():
        os.utime(path, (0, 0))
    again = ask(tiny_base, tmp_path, ["c", "a"], second)
    assert again == [answers[2], answers[0]]
    assert second == [], "nothing was asked again"
    assert [path.stat().st_mtime > 0 for path in (tmp_path / "cache").iterdir()].count(True) == 2  # used, so kept
    third: list[tuple[int, int]] = []
    ask(tiny_base, tmp_path, ["a", "new"], third)
    assert third[-1] == (1, 1)
