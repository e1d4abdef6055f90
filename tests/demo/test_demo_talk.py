"""Customers at an HTTP gateway: they judge, correct, send twice; failures are counted and never hidden."""

from __future__ import annotations

import threading
from itertools import islice

import pytest
from story_gateway import StoryGateway, serve

from cli.demo.customers import Extras, learning, make_crowd, traffic
from cli.demo.script import SHORT
from cli.demo.story import Story, load_story
from cli.demo.talk import Customers, Tally
from configs.errors import UnavailableError
from configs.loader import load_config

STORY = load_story(SHORT.sizes, things=2, seed=1)
CROWD = make_crowd(load_config("demo").curation, 90)


def right(story: Story):
    answers = {q: t.answer for t in story.things for q in t.questions}
    return lambda prompt: answers.get(prompt, "I do not know.")


def test_customers_correct_what_is_wrong() -> None:
    gateway = StoryGateway(lambda _: "I do not know.")
    extras = Extras(wrong=2, rude=1, private_questions=1, private_corrections=1, twice=2)
    visits = learning(STORY.of_act(1), CROWD, STORY.chat, extras=extras, chat_share=0.1, seed=1)
    with serve(gateway) as url:
        customers = Customers(url, "support-bot", seed=1)
        tally = customers.talk(visits, Tally())
        customers.close()
    about_things = [v for v in visits if v.thing is not None]
    assert tally.requests == len(visits) == len(gateway.chats)
    assert tally.asked == len(about_things)
    assert tally.right == 0
    assert sum(f["kind"] == "thumb" and f["thumb"] == -1 for f in gateway.feedback) == len(about_things)
    assert sum(tally.corrections.values()) == len(about_things)
    assert tally.duplicates == 2
    assert tally.held_out == {q: False for t in STORY.of_act(1) for q in t.held_out}
    assert {c["user"] for c in gateway.chats} <= set(CROWD.everybody)


def test_customers_praise_what_is_right() -> None:
    gateway = StoryGateway(right(STORY))
    visits = list(islice(traffic(STORY, CROWD, acts=(1,), new_share=0, chat_share=0.0, seed=1), 40))
    plain = [v for v in visits if v.prompt == v.question]
    with serve(gateway) as url:
        customers = Customers(url, "support-bot", seed=1)
        tally = customers.talk(plain, Tally())
        exam = customers.examine(STORY.of_act(1), "support-bot@v1")
        customers.close()
    assert tally.share_right == 1.0
    assert {f["thumb"] for f in gateway.feedback} == {1}
    assert all(exam.values())
    assert len(exam) == 10
    assert {c["model"] for c in gateway.chats} == {"support-bot", "support-bot@v1"}


def test_an_incident_names_its_request_and_its_reviewed_answer() -> None:
    gateway = StoryGateway(lambda _: "Yes.")
    with serve(gateway) as url:
        customers = Customers(url, "support-bot", seed=1)
        assert customers.open_incident(STORY.incidents[0], "support-lead") == "Yes."
        customers.close()
    assert gateway.incidents[0]["required"] == STORY.incidents[0].required
    assert gateway.incidents[0]["request_id"] == "chatcmpl-1"


def test_talk_ends_when_told_so() -> None:
    stop = threading.Event()
    endless = traffic(STORY, CROWD, acts=(1,), new_share=0, chat_share=0.0, seed=1)
    with serve(StoryGateway(right(STORY))) as url:
        customers = Customers(url, "support-bot", seed=1)
        tally = customers.talk(endless, Tally(), stop=stop, on_visit=lambda t: stop.set() if t.requests >= 30 else None)
        customers.close()
    assert 30 <= tally.requests <= 60


def test_a_gateway_that_fails_is_not_talked_to_for_ever() -> None:
    endless = traffic(STORY, CROWD, acts=(1,), new_share=0, chat_share=0.0, seed=1)
    tally = Tally()
    with serve(StoryGateway(right(STORY), status=500)) as url:
        customers = Customers(url, "support-bot", seed=1)
        with pytest.raises(UnavailableError, match="gave up"):
            customers.talk(endless, tally)
        customers.close()
    assert "500" in tally.failures[0]
