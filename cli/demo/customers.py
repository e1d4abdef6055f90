"""Who the simulated customers are and what they do; pure and seeded. `talk` sends it over the HTTP API.

A customer asks, looks whether the answer is the company's, gives a thumb and perhaps a correction. Most are right, some
are wrong, rude, send twice or leave personal data. Held-out customers ask the held-out questions, so that no question
of the target suite is ever also a training row.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cli.demo.story import Story, Thing, decorated
from configs.errors import ConfigError
from configs.schema import CurationSection


class Manner(StrEnum):
    """What a customer does after an answer that is not the company's."""

    THUMB = "thumb"
    """A thumb, no words."""
    CORRECTS = "corrects"
    """Also says what the answer should have been."""
    TWICE = "twice"
    """Corrects, and sends the same feedback again."""
    WRONG = "wrong"
    """Is mistaken about what the answer should be."""
    RUDE = "rude"
    PRIVATE_QUESTION = "private_question"
    """Puts an e-mail address and a phone number into the question, corrects properly."""
    PRIVATE_CORRECTION = "private_correction"
    """Puts a card number into the correction."""
    CHATS = "chats"
    """Talks of something else and leaves no feedback."""


@dataclass(frozen=True)
class Visit:
    """One question of one customer."""

    principal: str
    prompt: str
    thing: Thing | None
    """None for small talk."""
    manner: Manner
    question: str = ""
    """The question as the story has it, without greeting or personal data."""


@dataclass(frozen=True)
class Extras:
    """Corrections beside the proper ones, in numbers of customers."""

    wrong: int = 12
    rude: int = 6
    private_questions: int = 6
    private_corrections: int = 4
    twice: int = 6


@dataclass(frozen=True)
class Crowd:
    """A few hundred customers, by whether the platform holds them out for ever."""

    teachers: tuple[str, ...]
    held_out: tuple[str, ...]

    @property
    def everybody(self) -> tuple[str, ...]:
        return self.teachers + self.held_out


def make_crowd(config: CurationSection, size: int) -> Crowd:
    """`size` customers, told apart by the platform's own salted hash."""
    from data_contracts.curation import is_held_out

    names = [f"customer-{number:04d}" for number in range(size)]
    held = {name for name in names if is_held_out(name, config)}
    return Crowd(tuple(n for n in names if n not in held), tuple(n for n in names if n in held))


class _Deck:
    """Deals out names in a shuffled order, again from the start when all had their turn."""

    def __init__(self, names: Sequence[str], rng: random.Random) -> None:
        if not names:
            raise ConfigError(
                "the demo has no customers of one kind", fix="raise the crowd's size or change holdout_share"
            )
        self.names = list(names)
        rng.shuffle(self.names)
        self.at = -1

    def deal(self) -> str:
        self.at += 1
        return self.names[self.at % len(self.names)]


def private_details(rng: random.Random) -> str:
    """An e-mail address and a phone number that belong to nobody (reserved domain, reserved range)."""
    name = rng.choice(("mara", "otto", "lene", "ravi", "ines"))
    return f"{name}.hale{rng.randrange(10, 99)}@example.org, phone +44 20 7946 0{rng.randrange(100, 999)}"


CARD = "4111 1111 1111 1111"
"""A test number that passes the Luhn check and belongs to nobody."""


def correction_of(visit: Visit, rng: random.Random) -> str:
    """What the customer says the answer should have been."""
    assert visit.thing is not None  # noqa: S101 - small talk is never corrected
    answer = visit.thing.answer
    if visit.manner is Manner.WRONG:
        return rng.choice(visit.thing.wrong)
    if visit.manner is Manner.RUDE:
        return f"You stupid idiot of a bot, this is crap: {answer.lower()}"
    if visit.manner is Manner.PRIVATE_CORRECTION:
        return f"{answer} I paid with card {CARD}, by the way."
    return answer


def learning(
    things: Sequence[Thing], crowd: Crowd, chat: Sequence[str], *, extras: Extras, chat_share: float, seed: int
) -> list[Visit]:
    """Every training and held-out question of `things` once, the extras, and small talk; shuffled.

    A question is asked by one or two customers; its customer's kind decides which question it may be.
    """
    rng = random.Random(f"{seed}/learning")
    teach, hold = _Deck(crowd.teachers, rng), _Deck(crowd.held_out, rng)
    visits: list[Visit] = []
    for thing in things:
        visits += [Visit(teach.deal(), q, thing, Manner.CORRECTS, q) for q in thing.train]
        visits += [Visit(hold.deal(), q, thing, Manner.CORRECTS, q) for q in thing.held_out]
    visits = _some_send_twice(visits, extras.twice, rng)
    for manner, count in (
        (Manner.WRONG, extras.wrong),
        (Manner.RUDE, extras.rude),
        (Manner.PRIVATE_QUESTION, extras.private_questions),
        (Manner.PRIVATE_CORRECTION, extras.private_corrections),
    ):
        for number in range(count):
            thing = things[number % len(things)]
            question = rng.choice(thing.traffic)
            prompt = (
                f"{question} My contact: {private_details(rng)}." if manner is Manner.PRIVATE_QUESTION else question
            )
            visits.append(Visit(teach.deal(), prompt, thing, manner, question))
    for _ in range(round(len(visits) * chat_share / (1.0 - chat_share))):
        visits.append(_chat(rng.choice(crowd.everybody), chat, rng))
    rng.shuffle(visits)
    return visits


_TEACHING = (Manner.CORRECTS, Manner.TWICE, Manner.PRIVATE_QUESTION)


def before_threshold(visits: Sequence[Visit], crowd: Crowd, threshold: int) -> int:
    """How many of the visits, in their order, bring at most `threshold` - 2 corrections that may teach."""
    teachers = set(crowd.teachers)
    taught = 0
    for at, visit in enumerate(visits):
        if visit.principal in teachers and visit.manner in _TEACHING:
            taught += 1
            if taught == threshold - 1:
                return at
    return len(visits)


def _some_send_twice(visits: list[Visit], count: int, rng: random.Random) -> list[Visit]:
    chosen = set(rng.sample(range(len(visits)), min(count, len(visits))))
    return [
        Visit(v.principal, v.prompt, v.thing, Manner.TWICE, v.question) if i in chosen else v
        for i, v in enumerate(visits)
    ]


def _chat(principal: str, chat: Sequence[str], rng: random.Random) -> Visit:
    return Visit(principal, rng.choice(chat), None, Manner.CHATS)


def traffic(
    story: Story,
    crowd: Crowd,
    *,
    acts: Sequence[int],
    new_share: float,
    chat_share: float,
    seed: int,
    manner: Manner = Manner.THUMB,
    new_manner: Manner = Manner.THUMB,
) -> Iterator[Visit]:
    """Endless everyday traffic: each customer in turn, questions nobody was taught with.

    Args:
        story: what is asked about.
        crowd: who asks.
        acts: acts whose things are asked about.
        new_share: share of the last act's things among all visits, where `acts` names more than one.
        chat_share: share of small talk.
        seed: of the order.
        manner: what customers do after a wrong answer.
        new_manner: the same, for the last act's things.
    """
    rng = random.Random(f"{seed}/traffic")
    everyone = _Deck(crowd.everybody, rng)
    new = story.of_act(acts[-1]) if len(acts) > 1 else ()
    old = [thing for act in (acts[:-1] if new else acts) for thing in story.of_act(act)]
    while True:
        principal, draw = everyone.deal(), rng.random()
        if draw < chat_share:
            yield _chat(principal, story.chat, rng)
            continue
        fresh = bool(new) and draw < chat_share + new_share
        thing = rng.choice(new if fresh else old)
        question = rng.choice(thing.traffic)
        prompt = decorated(question, rng) if rng.random() < 0.15 else question
        yield Visit(principal, prompt, thing, new_manner if fresh else manner, question)


def mixed(
    lesson: Sequence[Visit], around: Iterator[Visit], after: Iterator[Visit], *, share: float, seed: int
) -> Iterator[Visit]:
    """The visits of a lesson in their order, at `share` of the traffic around them; then the traffic after."""
    rng = random.Random(f"{seed}/mixed")
    left = list(lesson)
    while left:
        yield left.pop(0) if rng.random() < share else next(around)
    yield from after
