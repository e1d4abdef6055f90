"""A Python pattern between two RE2 patterns: a wide one that matches at least, a narrow one that matches at most.

Arrow scans text with RE2, which knows no lookaround and no backreference and whose `\\w`, `\\d`, `\\s`, `\\b` and case
folding know ASCII (or other characters) only. Great Expectations searches with Python's `re`, or with RE2 where pandas
thinks that it makes no difference. So that a fast pass never overlooks a row:

    every text that `re` or RE2 matches with the pattern, `wide` matches;
    every text that `narrow` matches, both `re` and RE2 match with the pattern.

Built from Python's own parse tree. What one of the engines may see differently is left out (an assertion), widened (any
character beyond ASCII), or, in the narrow pattern, matches nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

Span = tuple[int, int]
TOP = 0x10FFFF
BEYOND_ASCII: Span = (0x80, TOP)
LAST_DIGIT = 0x1FFFF
"""No plane beyond the first two holds a decimal digit (a test looks at all characters)."""
NOTHING = r"[^\x{0}-\x{10FFFF}]"
MAX_REPEAT = 1000
"""RE2's own limit of counted repetition."""

# What RE2 and `re` both mean (narrow) within ASCII; beyond ASCII only `re` knows members.
_DIGIT: tuple[Span, ...] = ((0x30, 0x39),)
_WORD: tuple[Span, ...] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: tuple[Span, ...] = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
_SPACE_WIDE: tuple[Span, ...] = (
    (0x09, 0x0D), (0x1C, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
# Characters beyond ASCII that fold to an ASCII letter: K (Kelvin), long s, dotted capital and dotless small i.
_FOLDS = {"k": (0x212A,), "s": (0x17F,), "i": (0x130, 0x131)}


@dataclass(frozen=True)
class Bounds:
    """RE2 patterns around a Python pattern; None where RE2 cannot express one (too large)."""

    wide: str
    narrow: str

    @property
    def exact(self) -> bool:
        """True if both engines give the same answer on every text, so that one RE2 search settles it."""
        return self.wide == self.narrow


class _Unsure(Exception):  # not an error: it never leaves this module
    """The narrow pattern cannot say that this node matches."""


def parse(pattern: str) -> Any:
    """Python's parse tree.

    Raises:
        re.error: not a regular expression.
        FutureWarning: a set such as `[[:alpha:]]`, which means another thing to every engine.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        return _parser.parse(pattern)


def _walk(nodes: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
    for code, argument in nodes:
        yield code, argument
        if code is sre.SUBPATTERN:
            yield from _walk(argument[3])
        elif code is sre.BRANCH:
            for branch in argument[1]:
                yield from _walk(branch)
        elif code in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            yield from _walk(argument[2])
        elif code is sre.ATOMIC_GROUP:
            yield from _walk(argument)


def one_engine(pattern: str) -> str:
    """The pattern, with an empty lookahead where pandas would else choose an engine by the other rows of a batch.

    pandas searches with RE2 unless it sees a reason not to; `$` is one only where some row holds a line break. A row's
    verdict must not hang on its neighbours, and what RE2 cannot compile must not stop a run. A lookahead always makes
    pandas take `re`, and an empty one changes nothing else.
    """
    tree = parse(pattern)
    nodes = list(_walk(tree))
    codes = {code for code, _ in nodes}
    if codes & {sre.ASSERT, sre.ASSERT_NOT, sre.GROUPREF}:
        return pattern
    ignores_case = bool(tree.state.flags & re.IGNORECASE) or any(
        code is sre.SUBPATTERN and argument[1] & re.IGNORECASE for code, argument in nodes
    )
    # RE2 refuses what it does not know, but reads `a{,3}` as those five characters.
    foreign = "{," in pattern or not _re2_knows(pattern)
    fickle = ignores_case and (sre.AT, sre.AT_END) in nodes
    if not foreign and not fickle and not tree.state.flags & re.VERBOSE:
        return pattern
    return f"{pattern}\n(?=)" if tree.state.flags & re.VERBOSE else f"{pattern}(?=)"


def _re2_knows(pattern: str) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        pc.match_substring_regex(pa.array([""]), re.sub(r"(?<!\\)((?:\\\\)*)\\Z", r"\1\\z", pattern))
    except pa.ArrowInvalid:
        return False
    return True


@lru_cache(maxsize=512)
def bounds(pattern: str) -> Bounds:
    """Bounds of a pattern that `re` compiles."""
    tree = parse(pattern)
    flags = tree.state.flags
    wide = _sequence(list(tree), flags, wide=True, last=True)
    try:
        narrow = _sequence(list(tree), flags, wide=False, last=True)
    except _Unsure:
        narrow = NOTHING
    return Bounds(wide, narrow)


# --- sets of characters ------------------------------------------------------------------------


def _union(spans: Iterable[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for low, high in sorted(spans):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(spans: Iterable[Span]) -> tuple[Span, ...]:
    found, start = [], 0
    for low, high in _union(spans):
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    return (*found, (start, TOP)) if start <= TOP else tuple(found)


def _set_text(spans: Sequence[Span]) -> str:
    if not spans:
        return NOTHING
    if len(spans) == 1 and spans[0][0] == spans[0][1]:
        return _literal_text(spans[0][0])
    return "[" + "".join(rf"\x{{{low:x}}}" + (rf"-\x{{{high:x}}}" if high > low else "") for low, high in spans) + "]"


def _literal_text(code: int) -> str:
    return chr(code) if code < 0x80 and chr(code).isalnum() else rf"\x{{{code:x}}}"


def _folded(spans: Iterable[Span], wide: bool) -> tuple[Span, ...]:
    """The set under IGNORECASE: ASCII letters in both cases; wide: with whatever may fold to or from a member."""
    found = list(_union(spans))
    for letter in "abcdefghijklmnopqrstuvwxyz":
        both = (ord(letter), ord(letter.upper()))
        if any(low <= code <= high for code in both for low, high in tuple(found)):
            found += [(code, code) for code in both]
            found += [(code, code) for code in _FOLDS.get(letter, ()) if wide]
    if wide and any(high > 0x7F for _, high in _union(spans)):
        found.append(BEYOND_ASCII)
        found += [(ord(c), ord(c)) for letter in _FOLDS for c in (letter, letter.upper())]
    return _union(found)


@lru_cache(maxsize=1)
def _all_digits() -> tuple[Span, ...]:
    """Decimal digits of every script, as this Python knows them; fewer false suspects than "any character"."""
    return _union((code, code) for code in range(LAST_DIGIT + 1) if chr(code).isdecimal())


def _category(code: Any, wide: bool) -> tuple[Span, ...]:
    if code is sre.CATEGORY_DIGIT:
        return _all_digits() if wide else _DIGIT
    if code is sre.CATEGORY_WORD:
        return _union((*_WORD, BEYOND_ASCII)) if wide else _WORD
    if code is sre.CATEGORY_SPACE:
        return _union(_SPACE_WIDE if wide else _SPACE)
    opposite = {
        sre.CATEGORY_NOT_DIGIT: sre.CATEGORY_DIGIT,
        sre.CATEGORY_NOT_WORD: sre.CATEGORY_WORD,
        sre.CATEGORY_NOT_SPACE: sre.CATEGORY_SPACE,
    }
    return _complement(_category(opposite[code], not wide))


def _members(items: Sequence[Any], flags: int, wide: bool) -> tuple[Span, ...]:
    negated = bool(items) and items[0][0] is sre.NEGATE
    side = wide is not negated  # the complement of the narrow set is the wide one
    spans: list[Span] = []
    for code, argument in items[1:] if negated else items:
        if code is sre.LITERAL:
            spans.append((argument, argument))
        elif code is sre.RANGE:
            spans.append(argument)
        else:
            spans += _category(argument, side)
    found = _folded(spans, side) if flags & re.IGNORECASE else _union(spans)
    return _complement(found) if negated else found


# --- the tree ----------------------------------------------------------------------------------


def _sequence(nodes: Sequence[Any], flags: int, *, wide: bool, last: bool) -> str:
    end = len(nodes) - 1
    return "".join(_node(code, arg, flags, wide, last and i == end) for i, (code, arg) in enumerate(nodes))


def _node(code: Any, argument: Any, flags: int, wide: bool, last: bool) -> str:
    if code is sre.LITERAL:
        return _set_text(_members([(code, argument)], flags, wide))
    if code is sre.NOT_LITERAL:
        return _set_text(_members([(sre.NEGATE, None), (sre.LITERAL, argument)], flags, wide))
    if code is sre.IN:
        return _set_text(_members(argument, flags, wide))
    if code is sre.ANY:
        return r"[\x{0}-\x{10ffff}]" if flags & re.DOTALL else r"[^\n]"
    if code is sre.BRANCH:
        return _branch(argument[1], flags, wide, last)
    if code is sre.SUBPATTERN:
        _, added, removed, inner = argument
        return "(?:" + _sequence(list(inner), (flags | added) & ~removed, wide=wide, last=last) + ")"
    if code in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return _repeat(argument, flags, wide)
    if code is sre.AT:
        return _position(argument, flags, wide, last)
    if not wide:
        raise _Unsure
    if code is sre.ATOMIC_GROUP:
        return "(?:" + _sequence(list(argument), flags, wide=True, last=last) + ")"
    if code is sre.POSSESSIVE_REPEAT:
        return _repeat(argument, flags, wide)
    if code in (sre.ASSERT, sre.ASSERT_NOT):
        return ""
    return r"[\x{0}-\x{10ffff}]*"  # a reference to a group, a condition on one: any text


def _branch(branches: Sequence[Any], flags: int, wide: bool, last: bool) -> str:
    texts = []
    for branch in branches:
        try:
            texts.append(_sequence(list(branch), flags, wide=wide, last=last))
        except _Unsure:
            continue
    if not texts:
        raise _Unsure
    return "(?:" + "|".join(texts) + ")"


def _repeat(argument: Any, flags: int, wide: bool) -> str:
    low, high, inner = argument
    if low > MAX_REPEAT:
        if not wide:
            raise _Unsure
        low, high = MAX_REPEAT, sre.MAXREPEAT
    if high is not sre.MAXREPEAT and high > MAX_REPEAT:
        high = sre.MAXREPEAT if wide else MAX_REPEAT
    try:
        text = "(?:" + _sequence(list(inner), flags, wide=wide, last=False) + ")"
    except _Unsure:
        if low > 0:
            raise
        return ""  # none at all is a match too
    if (low, high) == (0, 1):
        return text + "?"
    if high is sre.MAXREPEAT and low <= 1:
        return text + ("+" if low else "*")
    return text + (f"{{{low},}}" if high is sre.MAXREPEAT else f"{{{low},{high}}}")


def _position(code: Any, flags: int, wide: bool, last: bool) -> str:
    if code is sre.AT_BEGINNING_STRING or (code is sre.AT_BEGINNING and not flags & re.MULTILINE):
        return r"\A"
    if code is sre.AT_BEGINNING:
        return "(?m:^)"
    if code is sre.AT_END_STRING:
        return r"\z"
    if code is sre.AT_END:
        if flags & re.MULTILINE:
            return "(?m:$)"
        return (r"(?:\n?\z)" if last else "") if wide else r"\z"
    if not wide:  # \b and \B: which characters are of a word differs
        raise _Unsure
    return ""
