"""`faithfulness`: every number, name and citation of the answer stands in what it was given (SCIENCE: signals).

What it was given is `reference`, the context, and the conversation. The score is the share of the answer's facts that
stand there; an answer without any fact scores 1, an empty one 0. By patterns, so limited: a name at the beginning of a
sentence is looked at only if it is written in capitals or holds a digit, nouns of languages that capitalise them count
as names, and a relation turned round ("Ann paid Ben" for "Ben paid Ann") is not seen.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

from data_contracts.records import EvalItem
from evaluation.scorers.base import TextScorer

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
_WORD = re.compile(r"[^\W_]+(?:['’&-][^\W_]+)*")
_CITED = re.compile(r"\[[^\[\]]{1,80}\]|https?://[^\s)>\]]+|[^\s@]{1,64}@[^\s@]{3,255}")
_BEGINS = re.compile(r"(?:^|[.!?:;\n]|[-*•]\s)[\s\"'“(\[]*$")
_NO_NAMES = frozenset({"i", "i'm", "i'll", "i've", "i'd", "ok", "yes", "no", "the", "a", "an"})
_SPELT = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
    )
}


def _plain(text: str) -> str:
    return _THOUSANDS.sub("", unicodedata.normalize("NFKC", text).replace("’", "'"))


def _number(text: str) -> str:
    """3.50 and 3.5 are one number; 9:30 and 12/05 stay as written."""
    try:
        value = Decimal(text.replace(",", "."))
    except InvalidOperation:
        return text
    return format(value.normalize(), "f")


def numbers(text: str) -> set[str]:
    """Numbers in a text, each in one form."""
    return {_number(found) for found in _NUMBER.findall(_plain(text))}


def _words(text: str) -> set[str]:
    return {part for word in _WORD.findall(_plain(text).casefold()) for part in (word, word.removesuffix("'s"))}


def names(text: str) -> set[str]:
    """Words that name something: capitalised within a sentence, all capitals, or letters with digits; case-folded."""
    found = set()
    plain = _plain(text)
    for match in _WORD.finditer(plain):
        word = match[0]
        code = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        capitals = len(word) > 1 and word.isupper() and word.isalpha()
        inside = word[0].isupper() and not _BEGINS.search(plain[max(0, match.start() - 12) : match.start()])
        if code or capitals or inside:
            found.add(word.casefold().removesuffix("'s"))
    return found - _NO_NAMES


def unfounded(answer: str, source: str) -> tuple[list[str], int]:
    """Facts of the answer that do not stand in the source, and how many facts it has."""
    known_words = _words(source)
    known_numbers = numbers(source) | {_SPELT[w] for w in known_words if w in _SPELT}
    cited = {found.rstrip(".,;:!?)").casefold() for found in _CITED.findall(_plain(answer))}
    outside = _CITED.sub(" ", _plain(answer))
    said = names(outside)
    # A code such as KL204 is a name, not a number.
    counted = numbers(_WORD.sub(lambda m: " " if any(c.isalpha() for c in m[0]) else m[0], outside))
    plain_source = _plain(source).casefold()
    missing = [n for n in counted if n not in known_numbers]
    missing += [n for n in said if n not in known_words]
    missing += [c for c in cited if c not in plain_source]
    return sorted(missing), len(counted) + len(said) + len(cited)


def _rate(item: EvalItem, answer: str) -> float:
    if not answer.strip():
        return 0.0
    missing, facts = unfounded(answer, "\n".join([item.reference, *(m.content for m in item.messages)]))
    return 1.0 - len(missing) / facts if facts else 1.0


SCORER = TextScorer(_rate)
