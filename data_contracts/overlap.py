"""Do two texts say the same words? Exact after normalising, near by word shingles, and shared 13-grams.

Used to find duplicates and to keep training prompts away from evaluation prompts. Standard library only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator

GRAM = 13
"""Words of the n-grams that mark a prompt as taken from another (the customary length for decontamination)."""
SHINGLE = 3
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-case words; compatibility forms (full width, ligatures) folded together."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def prompt_key(text: str) -> str:
    """Two prompts with the same key are the same prompt: case, spaces and punctuation aside."""
    return " ".join(words(text)) or " ".join(text.split())


def answer_key(text: str) -> str:
    """Two answers with the same key are the same answer: case, spaces, outer quotes and final punctuation aside.

    Inner punctuation stays: 4.5 is not 45.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'“”‘’«»` ").rstrip(" .!?,;:…。！？") or folded


def shingles(text: str, size: int = SHINGLE) -> frozenset[str]:
    """The set of `size`-word sequences; a shorter text is one shingle."""
    found = words(text)
    if len(found) <= size:
        return frozenset([" ".join(found)])
    return frozenset(" ".join(found[i : i + size]) for i in range(len(found) - size + 1))


def grams(text: str, size: int = GRAM) -> frozenset[str]:
    """The set of `size`-word sequences; empty for a shorter text."""
    found = words(text)
    return frozenset(" ".join(found[i : i + size]) for i in range(len(found) - size + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(one & other) / len(one | other) if one or other else 1.0


class NearIndex:
    """Texts by word shingles; finds those at or above a Jaccard similarity exactly, without comparing all pairs.

    Prefix filter: two sets with similarity >= t share one of the first |s| - ceil(t |s|) + 1 shingles of each, in any
    fixed order of all shingles (Chaudhuri, Ganti and Kaushik, 2006).
    """

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity
        self._sets: list[frozenset[str]] = []
        self._names: list[str] = []
        self._by_shingle: dict[str, list[int]] = {}

    def _prefix(self, found: frozenset[str]) -> list[str]:
        keep = len(found) - math.ceil(self.similarity * len(found) - 1e-9) + 1
        return sorted(found)[: max(1, keep)]

    def add(self, name: str, text: str) -> None:
        """Remember `text` under `name`."""
        found = shingles(text)
        place = len(self._sets)
        self._sets.append(found)
        self._names.append(name)
        for shingle in self._prefix(found):
            self._by_shingle.setdefault(shingle, []).append(place)

    def matches(self, text: str) -> Iterator[str]:
        """Names of remembered texts at or above the similarity, in the order they were added."""
        found = shingles(text)
        candidates = {place for shingle in self._prefix(found) for place in self._by_shingle.get(shingle, ())}
        for place in sorted(candidates):
            if jaccard(found, self._sets[place]) >= self.similarity - 1e-9:
                yield self._names[place]


class PromptIndex:
    """Prompts no other prompt may come near.

    Args:
        prompts: the prompts to protect.
        similarity: Jaccard similarity of word 3-shingles from which a prompt counts as the same.
    """

    MIN_TEMPLATE = 5
    TEMPLATE_SHARE = 0.05

    def __init__(self, prompts: Iterable[str], similarity: float) -> None:
        distinct = {prompt_key(p): p for p in prompts if p.strip()}
        self._exact = frozenset(distinct)
        self._near = NearIndex(similarity)
        counts: Counter[str] = Counter()
        for key in sorted(distinct):
            self._near.add(key, distinct[key])
            counts.update(grams(distinct[key]))
        # A sequence that many protected prompts share is a template around them and marks none of them.
        template = max(self.MIN_TEMPLATE, self.TEMPLATE_SHARE * len(distinct))
        self._grams = frozenset(gram for gram, n in counts.items() if n < template)

    def __len__(self) -> int:
        return len(self._exact)

    def overlap(self, text: str) -> str | None:
        """How `text` comes near a protected prompt: `exact`, `near`, `13-gram`, or None."""
        if prompt_key(text) in self._exact:
            return "exact"
        if next(self._near.matches(text), None) is not None:
            return "near"
        return "13-gram" if not self._grams.isdisjoint(grams(text)) else None
