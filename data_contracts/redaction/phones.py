"""Telephone numbers: with a country's code by its plan's lengths, without one by the shapes people write."""

from __future__ import annotations

import re

_PLANS = {
    1: (10, 10), 7: (10, 10), 20: (8, 10), 27: (9, 9), 30: (10, 10), 31: (9, 9), 32: (8, 9), 33: (9, 9), 34: (9, 9),
    36: (8, 9), 39: (6, 12), 40: (9, 9), 41: (9, 9), 43: (6, 13), 44: (9, 10), 45: (8, 8), 46: (7, 10), 47: (8, 8),
    48: (9, 9), 49: (6, 12), 51: (8, 9), 52: (10, 11), 53: (8, 8), 54: (10, 11), 55: (10, 11), 56: (9, 9), 57: (10, 10),
    58: (10, 10), 60: (8, 10), 61: (9, 9), 62: (8, 12), 63: (8, 10), 64: (8, 10), 65: (8, 8), 66: (8, 9), 81: (9, 10),
    82: (8, 10), 84: (9, 10), 86: (10, 11), 90: (10, 10), 91: (10, 10), 92: (9, 10), 93: (9, 9), 94: (9, 9),
    95: (8, 10), 98: (10, 10), 212: (9, 9), 213: (8, 9), 216: (8, 8), 234: (8, 10), 254: (9, 9), 351: (9, 9),
    352: (5, 11), 353: (7, 9), 354: (7, 7), 355: (8, 9), 356: (8, 8), 357: (8, 8), 358: (6, 12), 359: (7, 9),
    370: (8, 8), 371: (8, 8), 372: (7, 8), 373: (8, 8), 374: (8, 8), 375: (9, 9), 380: (9, 9), 381: (8, 9), 385: (8, 9),
    386: (8, 8), 387: (8, 8), 389: (8, 8), 420: (9, 9), 421: (9, 9), 423: (7, 7), 852: (8, 8), 853: (8, 8), 880: (8,
        10),
    886: (8, 9), 961: (7, 8), 962: (8, 9), 965: (8, 8), 966: (8, 9), 968: (8, 8), 971: (8, 9), 972: (8, 9), 973: (8, 8),
    974: (8, 8), 977: (8, 10), 998: (9, 9),
}  # fmt: skip
"""Country calling code to fewest and most digits after it (ITU-T E.164 and the national plans)."""
_OTHERS = (6, 11)
EXTENSION = re.compile(r"[ ,;]{0,2}(?:ext(?:ension)?|x|durchwahl|dw|poste|int)[ .:]{0,2}\d{1,6}(?!\w)", re.I)


def _plan(digits: str) -> tuple[int, int, int]:
    """Length of the calling code at the start, fewest and most digits after it."""
    for size in (1, 2, 3):
        low, high = _PLANS.get(int(digits[:size]), (0, 0))
        if high:
            return size, low, high
    return (3 if digits[:1] not in "17" else 1), *_OTHERS


def international(groups: list[str], *, plus: bool) -> tuple[int, str]:
    """How many of the groups, from the first, are a number with its country's code, and that number; (0, "") for none.

    Args:
        groups: runs of digits, the first after a `+`, or starting with 00 or 011.
        plus: a `+` stands before it: then also a number no plan fits, of 8 to 15 digits.
    """
    prefix = "" if plus else "00" if groups[0].startswith("00") else "011"
    joined, fits, loose = "", (0, ""), (0, "")
    for count, group in enumerate(groups, start=1):
        # "+49 (0)30": the 0 is dialled inside the country only.
        joined += "" if group == "0" and len(joined) > len(prefix) else group
        number = joined[len(prefix) :]
        if len(number) > 17:
            break
        if len(number) < 7 or number[0] == "0":
            continue
        size, low, high = _plan(number)
        national = number[size:].removeprefix("0")
        if low <= len(national) <= high:
            fits = (count, number[:size] + national)
        if 8 <= len(number) <= 15:
            loose = (count, number)
    return fits if fits[0] or not plus else loose


def national(lens: tuple[int, ...], first: str, second: str, *, paren: bool) -> bool:
    """True if groups of digits of these lengths are written like a telephone number, whatever the words around.

    Args:
        lens: length of each group.
        first: the first group, `second` the next one or "".
        paren: the first stands in parentheses.
    """
    total, size = sum(lens), lens[0]
    if first.startswith("00"):
        return False
    if paren and lens[0] == 2 and lens[1:2] == (1,):
        return lens == (2, 1, 4, 4)  # Brazil: (11) 9 8765-4321
    if paren:
        return 2 <= size <= 6 and 7 <= total <= 12 and len(lens) > 1 and min(lens) > 1
    if first == "0":
        return lens in ((1, 3, 3, 2, 2), (1, 3, 3, 4), (1, 3, 7)) and second[0] in "2345"  # Turkey: 0 (532) ...
    if first[0] == "0":
        if len(lens) == 1:
            return total in (10, 11)
        if size == 2:
            return total <= 12 and (
                (lens[1] >= 3 and total >= 9) or lens == (2, 2, 2, 2, 2) or (first == "06" and lens == (2, 2, 3, 4))
            )
        return 3 <= size <= 6 and 9 <= total <= (12 if len(lens) == 2 or lens[1] < 4 else 11) and min(lens) > 1
    if lens == (3, 3, 4):
        return first[0] not in "01"
    if first == "1":
        return lens == (1, 3, 3, 4)
    if first == "8":
        return lens in ((1, 3, 3, 2, 2), (1, 3, 3, 4)) and second[0] in "3489"
    if lens == (3, 2, 2, 2):
        return first[0] in "6789"
    if lens == (2, 5, 4):
        return second[0] == "9"
    return lens == (3, 4, 4) and first[0] == "1" and first[1] in "3456789"


def called(lens: tuple[int, ...], first: str, second: str = "") -> bool:
    """True if groups of these lengths can be a telephone number where the text says it is one."""
    total = sum(lens)
    if lens == (8,) and first[:2] in ("19", "20") and "01" <= first[4:6] <= "12":
        return False  # a date
    if lens in ((4, 2, 2), (2, 2, 4), (1, 2, 4), (2, 1, 4)):
        return False
    if lens == (4, 4) and first[:2] in ("19", "20") and second[:2] in ("19", "20"):
        return False  # years
    return 7 <= total <= 12 and len(lens) <= 6 and (len(lens) == 1 or min(lens[1:]) > 1)
