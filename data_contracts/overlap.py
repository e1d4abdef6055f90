"""Do two texts say the same words? Exact after normalising, near by word shingles, and shared 13-grams.

Used to find duplicates and to keep training prompts away from evaluation prompts. Standard library only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from zlib import crc32

GRAM = 13
"""Words of the n-grams that mark a prompt as taken from another (the customary length for decontamination)."""
SHINGLE = 3
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d")


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


# Letters of other alphabets that look like Latin ones (a few dozen of Unicode's confusables), to what they pass for.
_CONFUSABLE = str.maketrans(
    "авеѕіјкмнорстухԁԛԝһᴀɡοαινρτυχκʏⅼ∣ıɩ",
    "abesijkmhopctyxdqwhagoaivptuxkyllii",
)


def folded(text: str) -> str:
    """`text` without what the eye does not see or does not tell apart: case, width, accents, zero-width and other
    format characters, Cyrillic and Greek letters that look Latin.
    """
    apart = unicodedata.normalize("NFKD", text).casefold()
    seen = "".join(c for c in apart if unicodedata.category(c) not in ("Mn", "Cf", "Cc", "Co") or c in "\n\t\r")
    return unicodedata.normalize("NFKC", seen).translate(_CONFUSABLE)


def letters(text: str) -> str:
    """The letters and digits of a text one after another: spacing and punctuation do not matter."""
    return "".join(words(folded(text))).replace("_", "")


def letter_grams(text: str, size: int = 3) -> frozenset[str]:
    """The set of `size`-letter sequences of `letters`; a shorter text is one."""
    found = letters(text)
    return frozenset(found[i : i + size] for i in range(max(1, len(found) - size + 1)))


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
    both = len(one & other)
    return both / (len(one) + len(other) - both) if one or other else 1.0


class NearIndex:
    """Texts by word shingles; finds those at or above a Jaccard similarity without comparing all pairs.

    Prefix filter: two sets with similarity >= t share one of the first |s| - ceil(t |s|) + 1 shingles of each, in any
    fixed order of all shingles (Chaudhuri, Ganti and Kaushik, 2006). Shingles are kept as 32-bit checksums, some 50
    bytes a short text; two of one pair of texts agree by chance once in 10 million pairs.

    Args:
        similarity: Jaccard similarity.
        sets: what a text is made of.
        frequency: checksum -> how common it is; with the rare ones first a text meets few others.
    """

    def __init__(
        self,
        similarity: float,
        sets: Callable[[str], frozenset[str]] = shingles,
        frequency: Mapping[int, int] | None = None,
    ) -> None:
        self.similarity = similarity
        self._of = sets
        self._frequency = frequency or {}
        self._sets: list[array[int]] = []
        self._names: list[str] = []
        self._by_shingle: dict[int, array[int]] = {}

    def _prefix(self, found: frozenset[int]) -> list[int]:
        keep = len(found) - math.ceil(self.similarity * len(found) - 1e-9) + 1
        frequency = self._frequency
        return sorted(found, key=lambda s: (frequency.get(s, 0), s))[: max(1, keep)]

    def add(self, name: str, text: str) -> None:
        """Remember `text` under `name`."""
        found = checksums(self._of(text))
        place = len(self._sets)
        self._sets.append(array("I", sorted(found)))
        self._names.append(name)
        for shingle in self._prefix(found):
            self._by_shingle.setdefault(shingle, array("I")).append(place)

    def matches(self, text: str) -> Iterator[str]:
        """Names of remembered texts at or above the similarity, in the order they were added."""
        found = checksums(self._of(text))
        candidates = {place for shingle in self._prefix(found) for place in self._by_shingle.get(shingle, ())}
        least, most = self.similarity * len(found) - 1e-9, len(found) / max(self.similarity, 1e-9) + 1e-9
        for place in sorted(p for p in candidates if least <= len(self._sets[p]) <= most):
            other = self._sets[place]
            both = sum(map(found.__contains__, other))
            if both >= (self.similarity - 1e-9) * (len(found) + len(other) - both):
                yield self._names[place]


def checksums(found: Iterable[str]) -> frozenset[int]:
    """CRC-32 of each."""
    return frozenset(crc32(one.encode("utf-8", "surrogatepass")) for one in found)


def _digits_fit(one: str, other: str) -> bool:
    """False if both hold a digit the other does not: item 3 is not item 4."""
    mine, theirs = Counter(_DIGITS.findall(one)), Counter(_DIGITS.findall(other))
    return not (mine - theirs and theirs - mine)


class PromptIndex:
    """Prompts no other prompt may come near.

    Args:
        prompts: the prompts to protect.
        similarity: Jaccard similarity of word 3-shingles, or of letter 3-grams with the same digits, from which a
            prompt counts as the same.
        min_contained: a protected prompt of at least so many words that stands whole in another marks it.
        near: also compare by similarity; without it a large set costs little (see `neardup` for that part).
    """

    MIN_TEMPLATE = 5
    TEMPLATE_SHARE = 0.05

    def __init__(
        self, prompts: Iterable[str], similarity: float, *, min_contained: int = GRAM, near: bool = True
    ) -> None:
        distinct = {letters(p) or p.strip(): folded(p) for p in prompts if p.strip()}
        self._exact = frozenset(distinct)
        self._near = NearIndex(similarity)
        frequency = Counter(c for text in distinct.values() if near for c in checksums(letter_grams(text)))
        self._alike = NearIndex(similarity, letter_grams, frequency)
        self._whole: dict[int, set[str]] = {}
        counts: Counter[str] = Counter()
        for key in sorted(distinct):
            text = distinct[key]
            if near:
                self._near.add(key, text)
                self._alike.add(key, text)
            counts.update(grams(text))
            found = words(text)
            if min_contained <= len(found) < GRAM:
                self._whole.setdefault(len(found), set()).add(" ".join(found))
        # A sequence that many protected prompts share is a template around them and marks none of them.
        template = max(self.MIN_TEMPLATE, self.TEMPLATE_SHARE * len(distinct))
        self._grams = frozenset(gram for gram, n in counts.items() if n < template)

    def __len__(self) -> int:
        return len(self._exact)

    def overlap(self, text: str) -> str | None:
        """How `text` comes near a protected prompt: `exact`, `near`, `13-gram`, `contains` (it whole), or None."""
        if not self._exact:
            return None
        key, text = letters(text) or text.strip(), folded(text)
        if key in self._exact:
            return "exact"
        if next(self._near.matches(text), None) is not None:
            return "near"
        if any(_digits_fit(name, key) for name in self._alike.matches(text)):
            return "near"
        if not self._grams.isdisjoint(grams(text)):
            return "13-gram"
        return "contains" if any(not whole.isdisjoint(grams(text, n)) for n, whole in self._whole.items()) else None
