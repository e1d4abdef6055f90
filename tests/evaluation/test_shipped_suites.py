"""The shipped anchors and replay prompts: well-formed, varied, and not one anchor among the replay prompts."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from configs.loader import HERE
from evaluation.scorers.text import normalise
from evaluation.suites import load_suite

ANCHORS = HERE / "suites" / "anchors.jsonl"
REPLAY = HERE / "prompts" / "replay.jsonl"


def shingles(text: str, size: int = 3) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", normalise(text))
    return frozenset(tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1)))


def replay_rows(path: Path = REPLAY) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_anchors_cover_the_skills_with_short_answers() -> None:
    items = load_suite(ANCHORS)
    assert 100 <= len(items) <= 140
    slices = Counter(item.slice for item in items)
    assert len(slices) >= 8
    assert min(slices.values()) >= 12
    assert max(item.max_new_tokens for item in items) <= 28
    assert {item.scorer for item in items} >= {"contains", "choice", "regex", "refusal"}
    assert any(len(item.messages) > 2 for item in items), "multi-turn memory"


def test_no_anchor_is_asked_twice() -> None:
    asked = [normalise(" ".join(m.content for m in item.messages)) for item in load_suite(ANCHORS)]
    assert len(set(asked)) == len(asked)


def test_replay_prompts_are_many_and_varied() -> None:
    rows = replay_rows()
    assert len(rows) >= 150
    assert len({row["id"] for row in rows}) == len(rows)
    skills = Counter(row["skill"] for row in rows)
    assert len(skills) >= 8
    assert min(skills.values()) >= 10
    for row in rows:
        assert set(row) == {"id", "skill", "messages"}
        assert [m["role"] for m in row["messages"]] == ["user", "assistant", "user"][-len(row["messages"]) :]
        assert all(m["content"].strip() for m in row["messages"])


def test_no_replay_prompt_is_or_is_near_an_anchor() -> None:
    anchors = [(item.id, shingles(item.messages[-1].content)) for item in load_suite(ANCHORS)]
    whole = {normalise(" ".join(m.content for m in item.messages)) for item in load_suite(ANCHORS)}
    for row in replay_rows():
        assert normalise(" ".join(m["content"] for m in row["messages"])) not in whole
        mine = shingles(row["messages"][-1]["content"])
        for name, theirs in anchors:
            similarity = len(mine & theirs) / len(mine | theirs)
            assert similarity <= 0.5, f"{row['id']} is near {name}"
