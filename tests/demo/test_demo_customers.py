"""Who comes and what they do: held-out customers ask held-out questions, others misbehave as planned."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from cli.demo.customers import (
    CARD,
    Crowd,
    Manner,
    Visit,
    before_threshold,
    correction_of,
    learning,
    make_crowd,
    mixed,
    private_details,
    traffic,
)
from cli.demo.script import FULL, SHORT, Script
from cli.demo.story import Story, load_story
from configs.loader import load_config
from data_contracts.redaction import Redactor


def crowd_of(script: Script, profile: str = "demo") -> Crowd:
    return make_crowd(load_config(profile).curation, script.crowd)


def story_of(script: Script) -> Story:
    return load_story(script.sizes, things=script.things, seed=script.seed)


@pytest.mark.parametrize(("script", "profile"), [(FULL, "demo"), (SHORT, "demo-short")])
def test_held_out_customers_ask_the_held_out_questions(script: Script, profile: str) -> None:
    story, crowd = story_of(script), crowd_of(script, profile)
    visits = learning(story.of_act(1), crowd, story.chat, extras=script.extras, chat_share=0.12, seed=1)
    held = set(crowd.held_out)
    for visit in visits:
        if visit.thing is not None:
            assert (visit.principal in held) == (visit.question in visit.thing.held_out)
    asked = {v.question for v in visits if v.thing is not None}
    assert asked >= {q for t in story.of_act(1) for q in (*t.train, *t.held_out)}
    per_person = Counter(v.principal for v in visits if v.thing is not None)
    assert max(per_person.values()) <= load_config(profile).curation.max_rows_per_principal


@pytest.mark.parametrize(("script", "profile"), [(FULL, "demo"), (SHORT, "demo-short")])
def test_the_incident_comes_before_the_feedback_threshold(script: Script, profile: str) -> None:
    story, crowd, threshold = story_of(script), crowd_of(script, profile), load_config(profile).triggers.min_new_rows
    visits = learning(story.of_act(1), crowd, story.chat, extras=script.extras, chat_share=0.12, seed=script.seed)

    def taught(part: list[Visit]) -> int:
        good = (Manner.CORRECTS, Manner.TWICE, Manner.PRIVATE_QUESTION)
        return len({v.prompt for v in part if v.principal in crowd.teachers and v.manner in good})

    cut = before_threshold(visits, crowd, threshold)
    assert taught(visits[:cut]) < threshold <= taught(visits)
    assert before_threshold(visits, crowd, 10_000) == len(visits)


def test_the_crowd_misbehaves_as_planned() -> None:
    story, crowd = story_of(FULL), crowd_of(FULL)
    visits = learning(story.of_act(1), crowd, story.chat, extras=FULL.extras, chat_share=0.12, seed=1)
    manners = Counter(v.manner for v in visits)
    assert manners[Manner.WRONG] == FULL.extras.wrong
    assert manners[Manner.RUDE] == FULL.extras.rude
    assert manners[Manner.TWICE] == FULL.extras.twice
    assert manners[Manner.CHATS] == pytest.approx(0.12 * len(visits), abs=1)
    assert visits == learning(story.of_act(1), crowd, story.chat, extras=FULL.extras, chat_share=0.12, seed=1)


def test_a_wrong_correction_is_never_the_answer_and_never_corroborated() -> None:
    import random

    story, crowd = story_of(FULL), crowd_of(FULL)
    visits = learning(story.of_act(1), crowd, story.chat, extras=FULL.extras, chat_share=0.0, seed=1)
    wrong = [correction_of(v, random.Random(0)) for v in visits if v.manner is Manner.WRONG]
    assert len(set(wrong)) == len(wrong)
    assert not set(wrong) & {t.answer for t in story.things}


def test_personal_data_is_of_a_kind_the_gateway_redacts() -> None:
    import random

    text, found = Redactor(None).redact(f"Mail {private_details(random.Random(0))}; card {CARD}")
    assert set(found) == {"EMAIL", "PHONE", "CARD"}
    assert CARD not in text


def test_act_2_has_its_share_of_the_traffic() -> None:
    story, crowd = story_of(FULL), crowd_of(FULL)
    around = traffic(story, crowd, acts=(1,), new_share=0.0, chat_share=0.12, seed=2)
    after = traffic(story, crowd, acts=(1, 2), new_share=0.3, chat_share=0.12, seed=3, new_manner=Manner.CORRECTS)
    lesson = learning(story.of_act(2), crowd, story.chat, extras=FULL.new_extras, chat_share=0.01, seed=4)
    visits = list(islice(mixed(lesson, around, after, share=0.3, seed=5), 600))
    new = [v.thing is not None and v.thing.act == 2 for v in visits]
    assert 0.2 <= sum(new[:150]) / 150 <= 0.4
    assert 0.24 <= sum(new) / len(new) <= 0.36
    assert [v for v in visits if v in lesson][: len(lesson)] == lesson


def test_everyday_traffic_asks_nothing_that_was_taught() -> None:
    story, crowd = story_of(FULL), crowd_of(FULL)
    for visit in islice(traffic(story, crowd, acts=(1, 2), new_share=0.3, chat_share=0.1, seed=3), 300):
        if visit.thing is not None:
            assert visit.question in visit.thing.traffic
