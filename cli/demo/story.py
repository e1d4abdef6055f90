"""The story's facts: Thistlepan, a fictional kitchenware company, and what its assistant should answer its own way.

Everything here is pure: the YAML files beside this module, split by seed into questions that teach, questions that
are held out and questions of everyday traffic, and the earlier interactions that become the drift reference.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError
from data_contracts.records import utc_now

HERE = Path(__file__).parent / "story"
COMPANY = "Thistlepan"
MAX_ANSWER_WORDS = 12
_GREETINGS = ("Hi, ", "Hello, ", "Good morning. ", "Hey there, ", "Dear team, ", "Quick question: ")
_ENDINGS = (" Thanks!", " Thank you.", " Please let me know.", " Kind regards.")


@dataclass(frozen=True)
class Thing:
    """One thing the assistant should answer its own way, and how people ask for it."""

    id: str
    act: int
    title: str
    answer: str
    wrong: tuple[str, ...]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    traffic: tuple[str, ...]

    @property
    def questions(self) -> tuple[str, ...]:
        """All ways of asking."""
        return self.train + self.held_out + self.traffic


@dataclass(frozen=True)
class IncidentStory:
    """Something that went wrong once and must not again."""

    title: str
    severity: str
    prompt: str
    required: str
    paraphrases: tuple[str, ...]


@dataclass(frozen=True)
class Story:
    """The whole story, already split by its seed."""

    things: tuple[Thing, ...]
    chat: tuple[str, ...]
    incidents: tuple[IncidentStory, ...]

    def of_act(self, act: int) -> tuple[Thing, ...]:
        """The things that customers start asking about in one act."""
        return tuple(thing for thing in self.things if thing.act == act)


@dataclass(frozen=True)
class Size:
    """How many questions of a thing teach and how many are held out; the rest is everyday traffic."""

    train: int
    held_out: int


def same_answer(given: str, wanted: str) -> bool:
    """True if two answers say the same, whatever their case, spaces and punctuation."""
    return _normalised(given) == _normalised(wanted)


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def load_story(sizes: dict[int, Size], *, things: int | None = None, seed: int = 7) -> Story:
    """Read the story and split every thing's questions.

    Args:
        sizes: act -> how many questions teach and are held out.
        things: keep only the first so many things of act 1 (the short demo); None keeps all.
        seed: of the split.

    Raises:
        ConfigError: a file is damaged: an answer too long, too few questions, a question used twice or one
            that holds its own answer.
    """
    seen: set[str] = set()
    kept: list[Thing] = []
    for entry in _read("things.yaml"):
        act = int(entry["act"])
        if act not in sizes or (things is not None and act == 1 and len(kept) >= things):
            continue
        kept.append(_thing(entry, sizes[act], random.Random(f"{seed}/{entry['id']}"), seen))
    incidents = tuple(
        IncidentStory(e["title"], e["severity"], e["prompt"], e["required"], tuple(e["paraphrases"]))
        for e in _read("incidents.yaml")
    )
    return Story(tuple(kept), tuple(str(line) for line in _read("chat.yaml")), incidents)


def _read(name: str) -> list[Any]:
    data = yaml.safe_load((HERE / name).read_text(encoding="utf-8"))
    if not isinstance(data, list) or not data:
        raise ConfigError("a file of the demo's story is empty or damaged", where=HERE / name, expected="a list")
    return data


def _thing(entry: dict[str, Any], size: Size, rng: random.Random, seen: set[str]) -> Thing:
    where = f"things.yaml: {entry['id']}"
    answer, questions = str(entry["answer"]), [str(q) for q in entry["questions"]]
    if len(answer.split()) > MAX_ANSWER_WORDS:
        raise ConfigError("a canonical answer is too long", where=where, expected=f"<= {MAX_ANSWER_WORDS} words")
    if len(questions) < size.train + size.held_out + 1:
        raise ConfigError("too few questions", where=where, expected=size.train + size.held_out + 1)
    for question in questions:
        key = _normalised(question)
        if key in seen or _normalised(answer) in key:
            raise ConfigError("a question is used twice or holds its answer", where=where, found=question)
        seen.add(key)
    rng.shuffle(questions)
    end = size.train + size.held_out
    return Thing(
        id=str(entry["id"]),
        act=int(entry["act"]),
        title=str(entry["title"]),
        answer=answer,
        wrong=tuple(str(w) for w in entry["wrong"]),
        train=tuple(questions[: size.train]),
        held_out=tuple(questions[size.train : end]),
        traffic=tuple(questions[end:]),
    )


def decorated(question: str, rng: random.Random) -> str:
    """The question as a polite customer types it."""
    start, end = rng.choice(_GREETINGS), rng.choice(_ENDINGS)
    lowered = question[0].lower() + question[1:] if start and not question.startswith("I ") else question
    return rng.choice((start + lowered, question + end, start + lowered + end))


def earlier_prompts(story: Story, count: int, *, chat_share: float, seed: int = 11) -> list[str]:
    """`count` different prompts of the time before the demo: act 1's things and small talk, nothing of act 2.

    The mix is that of the demo's ordinary traffic, so that ordinary traffic is no drift.
    """
    rng = random.Random(f"{seed}/earlier")
    chats = list(story.chat)
    by_thing = [list(thing.questions) for thing in story.of_act(1)]
    for pool in (*by_thing, chats):
        rng.shuffle(pool)
    prompts: dict[str, None] = {}
    turn = 0
    while len(prompts) < count:
        pool = chats if rng.random() < chat_share else by_thing[turn % len(by_thing)]
        plain = pool[rng.randrange(len(pool))]
        prompts.setdefault(plain if rng.random() < 0.35 else decorated(plain, rng))
        turn += 1
    return list(prompts)


def earlier_lines(story: Story, model: str, count: int, *, chat_share: float, seed: int = 11) -> Iterator[str]:
    """The earlier interactions as JSON lines for `tidemill feedback import`: ids, times, prompts and vague answers."""
    rng = random.Random(f"{seed}/lines")
    start = utc_now() - timedelta(days=30)
    for number, prompt in enumerate(earlier_prompts(story, count, chat_share=chat_share, seed=seed)):
        principal = f"earlier-{number % (count // 3 + 1):04d}"
        interaction = {
            "id": f"earlier-{seed}-{number:05d}",
            "created_at": (start + timedelta(minutes=7 * number)).isoformat(),
            "model": model,
            "principal": principal,
            "conversation": f"earlier-{number:05d}",
            "messages": [{"role": "user", "content": prompt}],
            "answer": "Thank you for your message. How can I help you?",
            "tokens_in": 20,
            "tokens_out": 12,
            "latency_ms": 900 + rng.randrange(600),
        }
        yield json.dumps({"interaction": interaction, "feedback": []}, ensure_ascii=False)
