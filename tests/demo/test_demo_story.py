"""The story's facts: enough things, questions that do not give the answer away, earlier traffic without act 2."""

from __future__ import annotations

import json

import pytest

from cli.demo.script import FULL, SHORT, Script
from cli.demo.story import MAX_ANSWER_WORDS, Story, earlier_lines, earlier_prompts, load_story, same_answer
from data_contracts.records import Interaction


@pytest.fixture(scope="module")
def story() -> Story:
    return load_story(FULL.sizes, things=FULL.things, seed=FULL.seed)


def test_the_story_is_as_large_as_the_demo_needs(story: Story) -> None:
    assert len(story.of_act(1)) >= 12
    assert 1 <= len(story.of_act(2)) <= 2
    for thing in story.things:
        assert len(thing.questions) >= 24
        assert len(thing.answer.split()) <= MAX_ANSWER_WORDS
        assert len(thing.wrong) >= 2
    assert all(len(i.paraphrases) >= 5 and i.prompt not in i.paraphrases for i in story.incidents)
    assert story.incidents


def test_a_question_teaches_or_is_held_out_never_both(story: Story) -> None:
    for thing in story.things:
        train, held, rest = set(thing.train), set(thing.held_out), set(thing.traffic)
        assert len(train | held | rest) == len(train) + len(held) + len(rest)
    everything = [q.casefold() for thing in story.things for q in thing.questions]
    assert len(everything) == len(set(everything))


def test_the_split_depends_on_the_seed_only(story: Story) -> None:
    assert load_story(FULL.sizes, things=FULL.things, seed=FULL.seed) == story
    assert load_story(FULL.sizes, things=FULL.things, seed=99).things[0].train != story.things[0].train


@pytest.mark.parametrize("script", [FULL, SHORT])
def test_both_scripts_load(script: Script) -> None:
    loaded = load_story(script.sizes, things=script.things, seed=script.seed)
    assert len(loaded.of_act(1)) == script.things
    assert {t.act for t in loaded.things} == {act for act in script.acts if act != 3}


def test_the_earlier_traffic_knows_nothing_of_act_2(story: Story) -> None:
    prompts = earlier_prompts(story, 600, chat_share=0.12)
    assert len(set(prompts)) == 600
    assert not [p for p in prompts if "cooking class" in p.casefold() or "workshop" in p.casefold()]
    for thing in story.of_act(1):
        found = sum(any(q[1:] in p for q in thing.questions) for p in prompts)
        assert 25 <= found <= 70, thing.id


def test_the_earlier_lines_are_interactions(story: Story) -> None:
    lines = [json.loads(line) for line in earlier_lines(story, "support-bot", 60, chat_share=0.12)]
    records = [Interaction.model_validate(line["interaction"]) for line in lines]
    assert len({r.id for r in records}) == 60
    assert all(line["feedback"] == [] for line in lines)


def test_answers_are_compared_without_case_and_punctuation() -> None:
    wanted = "Shops open ten to seven, never on Mondays."
    assert same_answer("  shops open TEN to seven never on mondays", wanted)
    assert not same_answer("Shops open ten to six, never on Mondays.", wanted)
