"""Which answers say the same: those equal when normalised, and those in other words with the same facts.

In other words means: given to prompts within `paraphrase_cosine`, themselves within it, at least MIN_WORDS words long,
and with the same numbers, names and number of negations. Embeddings alone do not tell "within 45 days" from "within 30
days", or "is" from "is not".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from data_contracts.curation.results import Embed

MIN_WORDS = 4
"""Shorter answers (labels, yes, no) must be the same."""
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?", re.UNICODE)
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w&-]+|\b[A-Z]{2,}\b|\S+@\S+|https?://\S+")
_NEGATION = re.compile(r"\b(?:not?|never|none|nothing|without|neither|nor|cannot|un(?:able|til))\b|n['’]t\b")
_DIGIT = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
    )
}


def facts_of(answer: str) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Numbers, names and the number of negations of an answer; two that differ here do not say the same."""
    text = unicodedata.normalize("NFKC", answer).strip()
    lower = text.casefold()
    numbers = _NUMBER.findall(lower) + [_DIGIT[w] for w in _TOKEN.findall(lower) if w in _DIGIT]
    return tuple(sorted(numbers)), tuple(sorted(set(_NAME.findall(text)))), len(_NEGATION.findall(lower))


def same_claims(
    pairs: np.ndarray, answers: Sequence[str], embed: Embed, similarity: float, claims: np.ndarray
) -> np.ndarray:
    """int64 (answers,): the claim of each answer, `claims` with paraphrases taken together.

    Args:
        pairs: (p, 2) answers that were given to similar prompts, the smaller number first.
        answers: the texts.
        embed: for their vectors.
        similarity: cosine from which two answers may say the same.
        claims: (answers,) what each is by itself.
    """
    found = claims.copy()
    facts = {int(a): facts_of(answers[a]) for a in np.unique(pairs) if len(_TOKEN.findall(answers[a])) >= MIN_WORDS}
    kept = [(a, b) for a, b in pairs.tolist() if a in facts and b in facts and facts[a] == facts[b]]
    if not kept:
        return found
    used = sorted({a for pair in kept for a in pair})
    place = {a: n for n, a in enumerate(used)}
    vectors = np.asarray(embed([answers[a] for a in used]), dtype=np.float32)
    # Only to an answer that leads itself: a chain of small changes must not join what its ends do not share.
    for a, b in sorted(kept, key=lambda pair: (pair[1], pair[0])):
        leads = found[a] == claims[a] and found[b] == claims[b]
        if leads and float(vectors[place[a]] @ vectors[place[b]]) >= similarity:
            found[b] = claims[a]
    return found
