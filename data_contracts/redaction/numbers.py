"""Runs of digits: payment cards, IBANs, national numbers, telephone numbers.

One expression finds each run of seven digits or more with single spaces, dashes, dots, slashes or parentheses between;
what a run holds is decided by the lengths of its groups, their check digits and the words around.
"""

from __future__ import annotations

import re

from data_contracts.redaction.checks import IBAN_LENGTHS, iban_is_valid, issuer, luhn
from data_contracts.redaction.context import calls
from data_contracts.redaction.entities import Found
from data_contracts.redaction.national import (
    GROUPED,
    LETTER_CHECKS,
    LETTERED,
    LIKELY,
    NAMED,
    STRUCTURED_LETTERS,
    SURE,
    Check,
)
from data_contracts.redaction.network import ipv4
from data_contracts.redaction.phones import EXTENSION, called, international, national

FEWEST_DIGITS = 7
_RUN = re.compile(r"[0-9]+(?:[ .\-/()\t_]{1,3}[0-9]+)*")
_GROUP = re.compile(r"[0-9]+")
_DATE = re.compile(r"(?:[0-3]?[0-9]([./\-])[0-3]?[0-9]\1|(?:19|20)[0-9]{2}([./\-])[01]?[0-9]\2)(?:(?:19|20)?[0-9]{2})")
_MOST_GROUPS = 8
_GAPS = frozenset(
    (
        " ",
        "-",
        ".",
        "/",
        "\t",
        "_",
        "  ",
        "(",
        ")",
        " (",
        ") ",
        ")-",
        "-(",
        "/(",
        ")/",
        ") (",
        " - ",
        " / ",
        "/ ",
        " /",
        "- ",
        " -",
    )
)
"""What may stand between two groups of one number."""
_LETTERED_SIZES = frozenset((2, 6, 7, 8, 17))
"""Digits a lettered national number can begin with, or have after a letter and a space."""
_IBAN = re.compile(r"[A-Za-z]{2}[ \-]?\d\d(?:[ \-.]?[A-Za-z0-9]){11,30}")
_UNIT = re.compile(
    r"[ ]?(?:[€$£¥%°₹]|(?:eur|usd|gbp|chf|kr|sek|nok|dkk|pln|inr|kg|km|ms|mb|gb|bytes|tokens)\b)|,\d", re.I
)
_MONEY = re.compile(r"(?:[€$£¥₹]|(?:eur|usd|gbp|chf)[ ]?|\d,)$", re.I)

_NATIONAL_SHAPES = frozenset((*SURE, *LIKELY, *NAMED))

_Group = tuple[int, int]
"""Where a group of digits starts and ends in the text."""


def scan(text: str) -> list[list[Found]]:
    """IBANs, lettered national numbers, IPv4 addresses, and what runs of digits hold: four layers."""
    ibans: list[Found] = []
    letters: list[Found] = []
    addresses: list[Found] = []
    numbers: list[Found] = []
    for match in _RUN.finditer(text):
        start, end = match.span()
        glued = start and (text[start - 1].isalnum() or text[start - 1] == "_")
        if end - start < FEWEST_DIGITS and not glued and not (end - start == 6 and match[0].isdigit()):
            # Most numbers of a conversation: prices, times, versions. `RSS MRA 85T10 A562S` begins with two digits.
            if end - start == 2 and text[end : end + 1].isalpha():
                _read_lettered(text, start, letters)
            elif text[start - 3 : start - 1] in IBAN_LENGTHS:
                _read_apart(text, start, ibans)
            continue
        if _DATE.fullmatch(match[0]) and not glued:
            if text[start - 3 : start - 1].isalpha() and text[start - 1] in ".-/":
                _read_lettered(text, start, letters)  # AB-12-34-56-C
            continue
        if text[start - 3 : start - 1] in IBAN_LENGTHS:
            _read_apart(text, start, ibans)
        _read_groups(
            text, [(start + a, start + b) for a, b in map(_span, _GROUP.finditer(match[0]))], numbers, addresses
        )
        if glued:
            # An IBAN or a lettered number begins in front of its first digits.
            _read_glued(text, start, ibans, letters)
        for group in _GROUP.finditer(match[0], 1 if glued else 0):
            size = group.end() - group.start()
            if size in _LETTERED_SIZES or (size == 1 and text[start + group.end() : start + group.end() + 1] == "."):
                _read_lettered(text, start + group.start(), letters)
    return [ibans, letters, addresses, numbers]


def _read_groups(text: str, groups: list[_Group], numbers: list[Found], addresses: list[Found]) -> None:
    """The groups of one run, cut where no number has such a gap."""
    run: list[_Group] = []
    digits = 0
    for group in groups:
        start, end = group
        if run and text[run[-1][1] : start] not in _GAPS:
            _read_run(text, run, digits, numbers, addresses)
            run, digits = [], 0
        if not run and start and (text[start - 1].isalnum() or text[start - 1] == "_"):
            continue  # glued to letters: not a plain number
        run.append(group)
        digits += end - start
    _read_run(text, run, digits, numbers, addresses)


def _read_run(text: str, run: list[_Group], digits: int, numbers: list[Found], addresses: list[Found]) -> None:
    if len(run) >= 4 and digits >= 4:
        addresses += ipv4(text, run[0][0], run[-1][1])
    if digits < FEWEST_DIGITS:
        return
    place = 0
    while place < len(run):
        count, hit = _Run(text, run, place).read()
        if hit is not None:
            numbers.append(hit)
        place += count


def _read_glued(text: str, start: int, ibans: list[Found], letters: list[Found]) -> None:
    """Digits right behind letters."""
    first = start
    while first and start - first <= 6 and text[first - 1].isalnum():
        first -= 1
    if first and (text[first - 1].isalnum() or text[first - 1] == "_"):
        return
    if start - first == 2:
        iban = _iban(text, first)
        if iban is not None:
            ibans.append(iban)
            return
    _lettered(text, first, letters)


def _read_apart(text: str, start: int, ibans: list[Found]) -> None:
    """Digits after a country's letters and a space: `DE 89 3704 0044 ...`."""
    if start >= 3 and text[start - 1] in " -" and not text[max(0, start - 4) : start - 3].isalnum():
        iban = _iban(text, start - 3)
        if iban is not None:
            ibans.append(iban)


def _read_lettered(text: str, start: int, letters: list[Found]) -> None:
    """Digits with a space or a dash, or nothing, before them: `AB 12 34 56 C`, `X-1234567-L`, `12345678Z`."""
    if start >= 2 and text[start - 1] in " -./" and text[start - 2].isalpha():
        first = start - 2
        if first and text[first - 1].isalpha():
            first -= 1
        if not (first and (text[first - 1].isalnum() or text[first - 1] == "_")) and _lettered(text, first, letters):
            return
        if start >= 8 and text[start + 2 : start + 3].isalpha():
            # "RSS MRA 85T10 A562S", "RSSMRA 85T10 A562S"
            for first in (start - 8, start - 7):
                if not text[first - 1 : first].isalnum() and _lettered(text, first, letters):
                    return
    if not (letters and letters[-1].end > start):
        _lettered(text, start, letters)


def _iban(text: str, start: int) -> Found | None:
    """An international bank account number from there on, if country, length and check digits are right."""
    match = _IBAN.match(text, start)
    length = IBAN_LENGTHS.get(text[start : start + 2].upper(), 0)
    if match is None or not length:
        return None
    whole = match[0]
    end = seen = 0
    while end < len(whole) and seen < length:
        seen += whole[end].isalnum()
        end += 1
    glued = text[start + end : start + end + 1].isalnum()
    compact = "".join(filter(str.isalnum, whole[:end])).upper()
    return None if glued or not iban_is_valid(compact) else Found(start, start + end, "IBAN", compact)


def _lettered(text: str, start: int, letters: list[Found]) -> bool:
    """True, and the number is appended, if a national number with letters in it starts there."""
    match = LETTERED.match(text, start)
    if match is None:
        return False
    name = match.lastgroup or ""
    check, alone = LETTER_CHECKS[name]
    value = match[0].upper() if name == "fi" else "".join(filter(str.isalnum, match[0])).upper()
    if not check(value):
        return False
    if name not in STRUCTURED_LETTERS:
        nearest, around = calls(text, *match.span())
        upright = match[0][-1].isupper() or match[0][-1].isdigit()
        if not ("id" in around or (alone and nearest != "other" and upright)):
            return False
    letters.append(Found(match.start(), match.end(), "NATIONAL_ID", value))
    return True


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

    def _is_in_a_link(self) -> bool:
        """True behind the part of a link that a number with its country's code follows."""
        return self.text[max(0, self.start - 24) : self.start].lower().endswith(("wa.me/", "?phone=", "&phone="))

    # --- entities --------------------------------------------------------------------------------

    def _with_prefix(self) -> tuple[int, Found] | None:
        sign = self._sign()
        plus = sign.rstrip().endswith(("+", "+(")) or (sign[-1:] in ("/", "=") and self._is_in_a_link())
        if not plus and (not self.parts[0].startswith(("00", "011")) or sign.endswith((".", "-", "/"))):
            return None
        if not plus and (self.around[0] == "other" or (self.parts[0] == "011" and len(self.parts) < 3)):
            return None
        count, number = international(self.parts, plus=plus)
        if not count:
            return None
        found = self._found(count, "PHONE", number)
        start = self.start - (len(sign) - sign.rfind("+") if "+" in sign else 0)
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
        if lens not in _NATIONAL_SHAPES:
            return self._is_grouped_at_will(lens, digits)
        alone = _right(SURE.get(lens, ()), digits) or _right(LIKELY.get(lens, ()), digits)
        if not alone and (not _right(NAMED.get(lens, ()), digits) or self._goes_on(lens)):
            return False
        # What is called an order or a telephone number is one: a check is right by chance now and then.
        named = "id" in self.around[1]
        return (named or (alone and self.around[0] not in ("other", "phone", "card"))) and not self._is_fraction()

    def _is_grouped_at_will(self, lens: tuple[int, ...], digits: str) -> bool:
        """True for a national number that is called so, in groups nobody prescribes but with one sign between them."""
        checks = GROUPED.get(len(digits), ())
        if (
            not checks
            or len(lens) == 1
            or len({self._gap(self.place + n) for n in range(len(lens) - 1)}) > 1
            or self._goes_on(lens)
        ):
            return False
        return self.around[0] == "id" and _right(checks, digits)

    def _is_card(self, lens: tuple[int, ...], digits: str) -> bool:
        sure = issuer(digits, sure=True)
        if not (sure or issuer(digits, sure=False)) or not luhn(digits) or self._is_fraction():
            return False
        if "card" in self.around[1]:
            return True
        in_fours = lens[0] == 4 and set(lens[1:-1]) <= {4, 6} and lens[-1] <= 5
        return sure and (len(lens) == 1 or in_fours or lens == (8, 8)) and not self._is_part_of_fours(lens)

    def _goes_on(self, lens: tuple[int, ...]) -> bool:
        """True if the groups before or behind are set off like these: then these are a part of something longer."""
        gaps = {self._gap(self.place + n) for n in range(len(lens) - 1)}
        last = self.place + len(lens) - 1
        ahead = self.place > 0 and self._gap(self.place - 1) in gaps
        return ahead or (last + 1 < len(self.groups) and self._gap(last) in gaps | {"-"})

    def _is_part_of_fours(self, lens: tuple[int, ...]) -> bool:
        """True in a longer number in groups of four (a parcel's)."""
        if lens[0] != 4 or len(lens) < 4:
            return False
        last = self.place + len(lens) - 1
        neighbours = [n for n in (self.place - 1, last + 1) if 0 <= n < len(self.groups)]
        return self._goes_on(lens) and any(_size(self.groups[n]) == 4 for n in neighbours)

    def _is_phone(self, lens: tuple[int, ...]) -> bool:
        first = self.parts[0]
        second = self.parts[1] if len(lens) > 1 else ""
        opened = self.text[self.start - 1 : self.start] == "(" and len(lens) > 1 and ")" in self._gap(self.place)
        alone = national(lens, first, second, paren=opened)
        if not alone and not called(lens, first, second):
            return False
        before = self.text[max(0, self.start - 5) : self.start]
        last = self.groups[self.place + len(lens) - 1][1]
        if before.endswith((".", "-", "/", ",")) and before[-2:-1].isalnum():
            return False
        if len(lens) == 2 and lens[0] < 3 and self._gap(self.place) == ".":
            return False  # a decimal number
        if self.text[last : last + 1].isalpha() or self.text[last : last + 1] == "_":
            return False
        if alone:
            return self.around[0] not in ("other", "id", "card")
        return self.around[0] == "phone" and not _UNIT.match(self.text, last) and not _MONEY.search(before)

    def _found(self, count: int, entity: str, digits: str) -> Found:
        start, end = self.start, self.groups[self.place + count - 1][1]
        if entity == "PHONE":
            extension = EXTENSION.match(self.text, end)
            end = extension.end() if extension else end
            if self.text[start - 1 : start] == "(" and ")" in self.text[start:end]:
                start -= 1
        return Found(start, end, entity, digits)


def _span(match: re.Match[str]) -> _Group:
    return match.span()


def _size(group: _Group) -> int:
    return group[1] - group[0]


def _right(checks: tuple[Check, ...], digits: str) -> bool:
    return any(check(digits) for check in checks)
