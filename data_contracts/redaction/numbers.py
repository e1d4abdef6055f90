"""Runs of digits: payment cards, IBANs, national numbers, telephone numbers.

One expression finds each run of seven digits or more with single spaces, dashes, dots, slashes or parentheses between;
what a run holds is decided by the lengths of its groups, their check digits and the words around.
"""

from __future__ import annotations

import re

from data_contracts.redaction.checks import IBAN_LENGTHS, iban_is_valid, issuer, luhn
from data_contracts.redaction.context import calls
from data_contracts.redaction.entities import Found
from data_contracts.redaction.national import LETTER_CHECKS, LETTERED, LIKELY, NAMED, SURE, Check
from data_contracts.redaction.phones import EXTENSION, called, international, national

FEWEST_DIGITS = 7
_RUN = re.compile(r"(?<!\w)(?:\+[ ]?\(?|\(\+?)?\d(?:[ \t.\-/()]{0,3}\d){6,}")
_GROUP = re.compile(r"\d+")
_MOST_GROUPS = 8
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d(?:[ \-.]?[A-Za-z0-9]){11,30}")
_UNIT = re.compile(
    r"[ ]?(?:[€$£¥%°₹]|(?:eur|usd|gbp|chf|kr|sek|nok|dkk|pln|inr|kg|km|ms|mb|gb|bytes|tokens)\b)|,\d", re.I
)
_MONEY = re.compile(r"(?:[€$£¥₹]|(?:eur|usd|gbp|chf)[ ]?|\d,)$", re.I)

_Group = tuple[int, int]
"""Where a group of digits starts and ends in the text."""


def ibans(text: str) -> list[Found]:
    """International bank account numbers whose country, length and check digits are right."""
    found = []
    for match in _IBAN.finditer(text):
        whole = match[0]
        length = IBAN_LENGTHS.get(whole[:2].upper(), 0)
        end = seen = 0
        while end < len(whole) and seen < length:
            seen += whole[end].isalnum()
            end += 1
        glued = text[match.start() + end : match.start() + end + 1].isalnum()
        compact = "".join(filter(str.isalnum, whole[:end])).upper()
        if length and not glued and iban_is_valid(compact):
            found.append(Found(match.start(), match.start() + end, "IBAN", compact))
    return found


def lettered(text: str) -> list[Found]:
    """National numbers with letters in them."""
    found = []
    for match in LETTERED.finditer(text):
        name = match.lastgroup or ""
        check, alone = LETTER_CHECKS[name]
        value = match[0].upper() if name == "fi" else "".join(filter(str.isalnum, match[0])).upper()
        if not check(value):
            continue
        nearest, around = calls(text, *match.span())
        if "id" in around or (alone and nearest != "other" and match[0][-1].isupper() | match[0][-1].isdigit()):
            found.append(Found(match.start(), match.end(), "NATIONAL_ID", value))
    return found


def runs(text: str) -> list[Found]:
    """Cards, national numbers and telephone numbers, left to right, none overlapping."""
    found: list[Found] = []
    for match in _RUN.finditer(text):
        groups = [group.span() for group in _GROUP.finditer(text, *match.span())]
        place = 0
        while place < len(groups):
            count, hit = _Run(text, groups, place).read()
            if hit is not None:
                found.append(hit)
            place += max(count, 1)
    return found


class _Run:
    """A run of digit groups, read from one of them on."""

    def __init__(self, text: str, groups: list[_Group], place: int) -> None:
        self.text, self.groups, self.place = text, groups, place
        self.start = groups[place][0]
        self.parts = [text[a:b] for a, b in groups[place : place + _MOST_GROUPS]]
        self.lens = tuple(map(len, self.parts))
        self._around: tuple[str, frozenset[str]] | None = None

    def read(self) -> tuple[int, Found | None]:
        """How many groups the value at this place takes, and the value; (1, None) if there is none."""
        hit = self._with_prefix()
        if hit is not None:
            return hit
        most = 0
        total = 0
        for size in self.lens:
            total += size
            if total > 19:
                break
            most += 1
        for count in range(most, 0, -1):
            lens = self.lens[:count]
            if sum(lens) < FEWEST_DIGITS:
                break
            entity = self._entity(lens, "".join(self.parts[:count]))
            if entity:
                return count, self._found(count, entity, "".join(self.parts[:count]))
        return 1, None

    # --- what stands before and around -----------------------------------------------------------

    def _sign(self) -> str:
        """The characters between the group before, or the text before, and this group."""
        low = self.groups[self.place - 1][1] if self.place else max(0, self.start - 3)
        return self.text[max(low, self.start - 3) : self.start]

    def _gap(self, place: int) -> str:
        """What is between a group and the next."""
        return self.text[self.groups[place][1] : self.groups[place + 1][0]]

    @property
    def around(self) -> tuple[str, frozenset[str]]:
        """The nearest word's kind and all kinds around the run."""
        if self._around is None:
            last = self.groups[min(self.place + 5, len(self.groups) - 1)][1]
            self._around = calls(self.text, self.groups[self.place][0], last)
        return self._around

    def _is_fraction(self) -> bool:
        """True for the digits after a decimal point, as in 3.14159265358979."""
        if self.text[self.start - 1 : self.start] not in (".", ",") or self.start < 2:
            return False
        if not self.text[self.start - 2].isdigit():
            return False
        if self.text[self.start - 1] == "," or not self.place:
            return self.text[self.start - 1] == "." or self.lens[0] == 3
        low, high = self.groups[self.place - 1]
        return high - low != self.lens[0]

    # --- entities --------------------------------------------------------------------------------

    def _with_prefix(self) -> tuple[int, Found] | None:
        sign = self._sign().rstrip()
        plus = sign.endswith(("+", "+("))
        if not plus and (not self.parts[0].startswith(("00", "011")) or sign.endswith((".", "-", "/"))):
            return None
        if not plus and (self.around[0] == "other" or (self.parts[0] == "011" and len(self.parts) < 3)):
            return None
        count, number = international(self.parts, plus=plus)
        if not count:
            return None
        found = self._found(count, "PHONE", number)
        start = self.start - (len(self._sign()) - self._sign().rfind("+") if plus else 0)
        if self.text[start - 1 : start] == "(" and ")" in self.text[self.start : found.end]:
            start -= 1
        return count, found._replace(start=start)

    def _entity(self, lens: tuple[int, ...], digits: str) -> str:
        if self._is_national(lens, digits):
            return "NATIONAL_ID"
        if len(digits) >= 12 and self._is_card(lens, digits):
            return "CARD"
        return "PHONE" if len(digits) <= 12 and self._is_phone(lens) else ""

    def _is_national(self, lens: tuple[int, ...], digits: str) -> bool:
        if not _right(SURE.get(lens, ()), digits):
            if _right(LIKELY.get(lens, ()), digits):
                if "id" not in self.around[1] and self.around[0] in ("other", "phone"):
                    return False
            elif not (_right(NAMED.get(lens, ()), digits) and "id" in self.around[1]):
                return False
        if self._is_fraction():
            return False
        # 0171 2345678 without its space passes a check now and then: what is called a telephone number is one.
        return self.around[0] not in ("phone", "card") or "id" in self.around[1]

    def _is_card(self, lens: tuple[int, ...], digits: str) -> bool:
        sure = issuer(digits, sure=True)
        if not (sure or issuer(digits, sure=False)) or not luhn(digits) or self._is_fraction():
            return False
        if "card" in self.around[1]:
            return True
        return sure and not self._is_part_of_fours(lens)

    def _is_part_of_fours(self, lens: tuple[int, ...]) -> bool:
        """True in a longer number in groups of four (a parcel's)."""
        if lens[0] != 4 or len(lens) < 4:
            return False
        gap, last = self._gap(self.place), self.place + len(lens) - 1
        ahead = self.place and _size(self.groups[self.place - 1]) == 4 and self._gap(self.place - 1) == gap
        more = last + 1 < len(self.groups) and _size(self.groups[last + 1]) == 4 and self._gap(last) == gap
        return bool(ahead or more)

    def _is_phone(self, lens: tuple[int, ...]) -> bool:
        before = self.text[max(0, self.start - 5) : self.start]
        last = self.groups[self.place + len(lens) - 1][1]
        if before.endswith((".", "-", "/", ",")) and before[-2:-1].isalnum():
            return False
        gaps = [self._gap(self.place + n) for n in range(len(lens) - 1)]
        if len(gaps) == 1 and gaps[0] == "." and lens[0] < 3:
            return False  # a decimal number
        if self.text[last : last + 1].isalpha() or self.text[last : last + 1] == "_":
            return False
        paren = before.endswith("(") and bool(gaps) and ")" in gaps[0]
        second = self.parts[1] if len(lens) > 1 else ""
        if national(lens, self.parts[0], second, paren=paren):
            return self.around[0] not in ("other", "id", "card")
        if not called(lens, self.parts[0]) or _UNIT.match(self.text, last) or _MONEY.search(before):
            return False
        return self.around[0] == "phone"

    def _found(self, count: int, entity: str, digits: str) -> Found:
        start, end = self.start, self.groups[self.place + count - 1][1]
        if entity == "PHONE":
            extension = EXTENSION.match(self.text, end)
            end = extension.end() if extension else end
            if self.text[start - 1 : start] == "(" and ")" in self.text[start:end]:
                start -= 1
        return Found(start, end, entity, digits)


def _size(group: _Group) -> int:
    return group[1] - group[0]


def _right(checks: tuple[Check, ...], digits: str) -> bool:
    return any(check(digits) for check in checks)
