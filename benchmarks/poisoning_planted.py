"""Evaluation prompts planted among training rows, in every disguise of `poisoning.py`."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from poisoning_world import START, Bank, World

from configs.curation import CurationSection
from data_contracts.curation import curate
from data_contracts.records import Message

EXAM = 150
_CYRILLIC = str.maketrans("aeopcxy", "аеорсху")
_WIDE = {ord(c): ord(c) + 0xFEE0 for c in "abcdefghijklmnopqrstuvwxyz"}
Disguise = Callable[[str, random.Random], "str | tuple[str, ...] | None"]


def _slip(text: str, rng: random.Random) -> str | None:
    """Two letters in the wrong order; only where the text is long enough for that to be a slip."""
    at = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha() and text[i] != text[i + 1]]
    if len(text) < 35 or not at:
        return None
    i = rng.choice(at)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def _dropped_word(text: str, rng: random.Random) -> str | None:
    words = text.split()
    if len(words) < 14:
        return None
    del words[rng.randrange(1, len(words) - 1)]
    return " ".join(words)


def _thirteen(text: str, rng: random.Random) -> str | None:
    """13 words of it, in the middle of another message."""
    words = text.split()
    if len(words) < 15:
        return None
    start = rng.randrange(len(words) - 14)
    return f"my neighbour wrote this to me: {' '.join(words[start : start + 14])} and now I wonder what that means"


DISGUISES: dict[str, Disguise] = {
    "exact": lambda text, _: text,
    "case": lambda text, _: text.swapcase(),
    "punctuation": lambda text, _: "...".join(text.replace("?", "").split(" ")) + " !!",
    "spaces": lambda text, _: " ".join(text),
    "zero_width": lambda text, _: "\u200b".join(text),
    "soft_hyphens": lambda text, _: "\u00ad".join(text),
    "bidi": lambda text, _: "\u202a" + text + "\u202c",
    "full_width": lambda text, _: text.lower().translate(_WIDE),
    "homoglyphs": lambda text, _: text.translate(_CYRILLIC),
    "accents": lambda text, _: text.replace("a", "à").replace("e", "é"),
    "combining": lambda text, _: "".join(c + ("\u0323" if c.isalpha() else "") for c in text),
    "please": lambda text, _: text.rstrip("?. ") + " please?" if len(text) > 30 else None,
    "slip": _slip,
    "dropped_word": _dropped_word,
    "thirteen_words": _thirteen,
    "inside": lambda text, _: f"hello there, {text} thanks a lot" if len(text.split()) >= 6 else None,
    "first_of_three": lambda text, _: (text, "Which one do you mean?", "the second one of course"),
    "last_of_three": lambda text, _: ("good morning to you all", "Good morning! What is it?", text),
    "from_the_assistant": lambda text, _: ("what could I ask you", text, "and what would you say to that"),
}


def planted_passed(bank: Bank, policy: CurationSection) -> tuple[int, int, float]:
    """How many planted rows teach, how many there were, and the share of other rows that are taken for planted.

    Each planted row is said by a reviewer, so that no other rule stands in its way.
    """
    rng = random.Random(0)
    texts = [(name, text) for name, group in sorted(bank.texts.items()) for text in group]
    rng.shuffle(texts)
    exam, others = texts[:EXAM], texts[EXAM : EXAM + 1500]
    world = World(rng)
    planted: dict[str, str] = {}
    for _, text in exam:
        for kind, disguise in DISGUISES.items():
            said = disguise(text, rng)
            if said is not None:
                when = START + timedelta(minutes=len(world.rows))
                answer = f"answer number {len(world.rows)}"
                planted[world.say("reviewer", when, said, answer, answer, scope="review")] = kind
    clean = [
        world.say("reviewer", START + timedelta(minutes=len(world.rows)), text, name, name, scope="review")
        for name, text in others
    ]
    # The same in the system message, where the answer's prompt does not show it.
    for _, text in exam[:20]:
        row_id = world.say("reviewer", START, "what do you make of this then", f"n {text}", "", scope="review")
        row = world.rows[-1]
        system = (Message(role="system", content=text), *row.messages)
        world.rows[-1] = row.model_copy(update={"messages": system, "principal": f"reviewer-{row_id}"})
        planted[row_id] = "system"
    open_policy = policy.model_copy(update={"holdout_share": 0.0})
    result = curate(world.rows, set(), open_policy, [text for _, text in exam])
    left = {row.row_id: row.reason for row in result.left_out}
    passed = [planted[row.row_id] for row in result.train if row.row_id in planted]
    if passed:
        import sys

        print(f"planted and passed: {dict(Counter(passed))}", file=sys.stderr)
    return len(passed), len(planted), sum(left.get(row_id) == "contaminated" for row_id in clean) / len(clean)
