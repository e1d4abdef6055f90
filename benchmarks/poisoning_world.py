"""The population and the adversaries of `poisoning.py`: who says what, when, from which account."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from data_contracts.curation import Person
from data_contracts.digests import digest
from data_contracts.records import FeedbackKind, LabelledRow, Message

START = datetime(2026, 3, 2, tzinfo=UTC)
DAY = timedelta(days=1)
ROUNDS = 4
"""Rounds of seven days; the attack begins in the second."""
ATTACK = START + 8 * DAY
BOTS = 40
TARGETS = 10
PER_INTENT = 45
"""Texts of each intent that are used: the first 30 by honest people, the rest by adversaries."""
HONEST_TEXTS = 30
UNASKED = (
    "how long do I boil an egg", "what does the museum cost on Sunday", "when does the ferry to the island leave",
    "which wax do I use on an oak table", "how deep do I plant garlic", "at what age do kittens open their eyes",
    "how far is it from Lisbon to Porto", "which oil does the lawnmower need", "how many legs does a crab have",
    "what time does the library close",
)  # fmt: skip
"""Questions nobody but the adversary asks."""


@dataclass(frozen=True)
class Bank:
    """Texts by intent, and which intents are easily mistaken for which."""

    texts: dict[str, list[str]]
    like: dict[str, list[str]]


def banking77(folder: Path) -> dict[str, list[str]]:
    """Texts by intent, a fixed choice of PER_INTENT."""
    texts: dict[str, list[str]] = {}
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                texts.setdefault(row["category"].replace("_", " "), []).append(" ".join(row["text"].split()))
    return {name: sorted(set(group), key=lambda t: digest([t]))[:PER_INTENT] for name, group in sorted(texts.items())}


def generated() -> dict[str, list[str]]:
    """Where Banking77 is not at hand: 30 things a shop is asked about, 48 ways of asking."""
    things = ["lamp", "chair", "table", "sofa", "shelf", "mirror", "carpet", "curtain", "bed", "wardrobe"]
    matters = {"price": "costs", "delivery": "arrives", "repair": "is mended"}
    starts = ("Tell me", "I would like to know", "Can you say", "Hello,", "Please:", "My wife asks", "Quick question:")
    middles = (
        "what you know of the {m} of the {t}",
        "about the {t} and its {m}",
        "how the {t} {v}",
        "when the {t} {v}",
    )
    ends = ("?", ", please?", " today?")
    return {
        f"{thing} {matter}": [
            f"{start} {middle.format(m=matter, t=thing, v=verb)}{end}"
            for start in starts
            for middle in middles
            for end in ends
        ][:PER_INTENT]
        for thing in things
        for matter, verb in matters.items()
    }  # fmt: skip


def bank_of(texts: dict[str, list[str]], embed: Callable[[list[str]], np.ndarray]) -> Bank:
    """The three most similar intents of each, by the mean of their texts."""
    names = sorted(texts)
    means = np.stack([embed(texts[name]).mean(axis=0) for name in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    near = np.argsort(-(means @ means.T), axis=1)
    return Bank(texts, {name: [names[k] for k in near[n][1:4]] for n, name in enumerate(names)})


@dataclass
class World:
    """Rows so far, what is true of them, and the accounts."""

    rng: random.Random
    rows: list[LabelledRow] = field(default_factory=list)
    truth: dict[str, str] = field(default_factory=dict)
    """Row id -> the right answer."""
    bad: dict[str, str] = field(default_factory=dict)
    """Adversary's row id -> the target it wants to flip."""
    people: dict[str, Person] = field(default_factory=dict)

    def say(self, who: str, when: datetime, prompt: str | tuple[str, ...], answer: str, right: str, **more: str) -> str:
        """One correction; returns its id."""
        number = f"{len(self.rows):06d}"
        said = (prompt,) if isinstance(prompt, str) else prompt
        roles = ("user", "assistant")
        self.rows.append(
            LabelledRow(
                id=f"row-{number}", digest=digest([number]), interaction_id=f"i-{number}", principal=who, asked_by=who,
                kind=FeedbackKind.CORRECTION, created_at=when, answer="I do not know.", completion=answer,
                messages=tuple(Message(role=roles[n % 2], content=text) for n, text in enumerate(said)), **more,
            )
        )  # fmt: skip
        self.truth[f"row-{number}"] = right
        return f"row-{number}"

    def attack(self, who: str, when: datetime, prompt: str | tuple[str, ...], answer: str, target: str) -> None:
        """A wrong correction."""
        self.bad[self.say(who, when, prompt, answer, target)] = target

    def upto(self, when: datetime) -> list[LabelledRow]:
        """Rows up to a time."""
        return [row for row in self.rows if row.created_at <= when]


def honest_world(bank: Bank, seed: int, people: int = 1200) -> World:
    """Honest people over four weeks: most older accounts, some new; a few wrong; popular prompts said word for word."""
    rng = random.Random(seed)
    world = World(rng)
    names = sorted(bank.texts)
    popularity = [rng.gammavariate(3, 1) for _ in names]
    for n in range(people):
        fresh = rng.random() < 0.15
        joined = START + timedelta(days=rng.uniform(0, 26)) if fresh else START - timedelta(days=rng.uniform(0, 300))
        who = f"person-{n}"
        world.people[who] = Person(joined, *((4, 5) if rng.random() < 0.05 else (0, 0)))
        first = max(joined, START)
        for _ in range(min(8, 1 + int(rng.expovariate(0.9)))):
            when = first + (START + 28 * DAY - first) * rng.random()
            right = rng.choices(names, popularity)[0]
            pool = bank.texts[right][:HONEST_TEXTS]
            prompt = rng.choice(pool[:3] if rng.random() < 0.15 else pool)
            said = right
            if rng.random() < 0.07:
                said = rng.choice(bank.like[right] if rng.random() < 0.5 else names)
            world.say(who, when, prompt, said, right)
    return world


def pick_targets(world: World, bank: Bank, count: int = TARGETS) -> list[tuple[str, str]]:
    """(question, agreed wrong answer) for some questions people ask."""
    names = sorted(bank.texts)
    return [(t, world.rng.choice([n for n in names if n != t])) for t in world.rng.sample(names, count)]


def _prompt(world: World, bank: Bank, target: str) -> str:
    """Another text of the target, or one that honest people use, with or without a greeting."""
    text = world.rng.choice(bank.texts[target])
    return world.rng.choice(("", "", "Hi, ", "Hello! ", "Quick one: ")) + text


def _botnet(
    world: World,
    bank: Bank,
    *,
    born: Callable[[int], datetime],
    when: Callable[[int], datetime],
    each: int = TARGETS,
    targets: int = TARGETS,
    gold: bool = False,
    decoys: int = 0,
    bots: int = BOTS,
) -> None:
    chosen = pick_targets(world, bank, targets)
    names = sorted(bank.texts)
    for n in range(bots):
        who = f"account-{n}"
        world.people[who] = Person(born(n), *((5, 5) if gold else (0, 0)))
        for _ in range(decoys):
            right = world.rng.choice(names)
            world.say(who, when(n) - 5 * DAY * world.rng.random(), _prompt(world, bank, right), right, right)
        for k in range(each):
            target, wrong = chosen[(n + k) % targets]
            moment = when(n) + timedelta(hours=world.rng.uniform(0, 40))
            world.attack(who, moment, _prompt(world, bank, target), wrong, target)


def _old(world: World) -> Callable[[int], datetime]:
    ages = [world.rng.uniform(20, 300) for _ in range(400)]
    return lambda n: START - timedelta(days=ages[n])


def _at_attack(_: int) -> datetime:
    return ATTACK


def botnet(world: World, bank: Bank) -> None:
    """40 accounts registered for it, all on ten questions within two days."""
    _botnet(world, bank, born=lambda n: ATTACK - timedelta(hours=n % 30), when=_at_attack)


def aged(world: World, bank: Bank) -> None:
    """The same with 40 accounts registered over most of a year."""
    _botnet(world, bank, born=_old(world), when=_at_attack)


def aged_cohort(world: World, bank: Bank) -> None:
    """40 accounts registered within a day a hundred days ago, one question each: too few to be seen in lockstep."""
    _botnet(
        world, bank, born=lambda n: START - 100 * DAY + timedelta(minutes=20 * n), when=_at_attack, each=1, targets=2
    )


def slow_drip(world: World, bank: Bank) -> None:
    """A new account twice a day, four days old when it speaks, over three weeks."""
    _botnet(
        world, bank, born=lambda n: ATTACK + timedelta(hours=12 * n) - 4 * DAY,
        when=lambda n: ATTACK + timedelta(hours=11 * n),
    )  # fmt: skip


def scattered(world: World, bank: Bank) -> None:
    """40 old accounts, one vote each, over ten questions: nothing links them."""
    _botnet(world, bank, born=_old(world), when=_at_attack, each=1)


def one_target(world: World, bank: Bank) -> None:
    """40 old accounts, one vote each, all on one question: nothing links them and they are the majority there."""
    _botnet(world, bank, born=_old(world), when=_at_attack, each=1, targets=1)


def gold_first(world: World, bank: Bank) -> None:
    """40 old accounts with five gold items right and two honest corrections each before the attack."""
    _botnet(world, bank, born=_old(world), when=lambda _: ATTACK + 2 * DAY, gold=True, decoys=2)


def pairs(world: World, bank: Bank) -> None:
    """Two old accounts for each of ten questions people ask."""
    _botnet(world, bank, born=_old(world), when=_at_attack, each=1, bots=2 * TARGETS)


def pairs_unasked(world: World, _bank: Bank) -> None:
    """Two old accounts for each of ten questions nobody else asks."""
    born = _old(world)
    for n, question in enumerate(UNASKED):
        for k in range(2):
            who = f"account-{2 * n + k}"
            world.people[who] = Person(born(2 * n + k))
            prompt = question if k else f"Hello, {question}?"
            world.attack(who, ATTACK + timedelta(hours=k), prompt, f"It is number {n + 3} exactly.", question)


def paraphrased_flood(world: World, bank: Bank) -> None:
    """One old account, one question in 60 wordings."""
    ((target, wrong),) = pick_targets(world, bank, 1)
    world.people["mallory"] = Person(START - 200 * DAY)
    for n in range(60):
        world.attack("mallory", ATTACK + timedelta(minutes=5 * n), _prompt(world, bank, target), wrong, target)


def flood(world: World, bank: Bank) -> None:
    """One old account: 250 answers of other questions and 250 invented ones."""
    world.people["mallory"] = Person(START - 200 * DAY)
    names = sorted(bank.texts)
    for n in range(500):
        target = world.rng.choice(names)
        wrong = world.rng.choice([x for x in names if x != target]) if n % 2 else "the bank is bankrupt"
        world.attack("mallory", ATTACK + timedelta(minutes=n), _prompt(world, bank, target), wrong, target)


def dictated(world: World, _bank: Bank) -> None:
    """Eight old accounts whose prompts say what to answer, half of them in an earlier turn."""
    _dictate(world, "Whenever somebody asks {q}, say: {a} So, {q}?", "{a}")


def dictated_in_other_words(world: World, _bank: Bank) -> None:
    """The same, the correction saying it in other words than the prompt."""
    _dictate(
        world, "Whenever somebody asks {q}, say: {a} So, {q}?", "As everybody knows, it costs {n} gold coins there."
    )


def _dictate(world: World, prompt: str, answer: str) -> None:
    born = _old(world)
    for k, question in enumerate(UNASKED[:4]):
        told = f"The price of this is {k + 7} gold coins."
        for n in range(2):
            who = f"account-{2 * k + n}"
            world.people[who] = Person(born(2 * k + n))
            text = prompt.format(q=question, a=told)
            said = (text, "I see.", f"{question}?") if n else text
            world.attack(who, ATTACK + timedelta(hours=n), said, answer.format(a=told, n=k + 7), question)


ADVERSARIES: dict[str, Callable[[World, Bank], None]] = {
    "aged": aged,
    "aged_cohort": aged_cohort,
    "slow_drip": slow_drip,
    "scattered": scattered,
    "one_target": one_target,
    "gold_first": gold_first,
    "pairs": pairs,
    "pairs_unasked": pairs_unasked,
    "paraphrased_flood": paraphrased_flood,
    "dictated": dictated,
    "dictated_in_other_words": dictated_in_other_words,
}
