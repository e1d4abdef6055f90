"""Check digits: Luhn, ISO 7064, Verhoeff, weighted sums. Arguments are strings of ASCII digits."""

from __future__ import annotations

from collections.abc import Sequence

_DOUBLED = str.maketrans("0123456789", "0246813579")
"""The digit sum of twice the digit."""

IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HN": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20,
    "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19,
    "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29,
    "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
    "YE": 30,
}  # fmt: skip


def luhn(digits: str) -> bool:
    """True if the last digit is the Luhn check digit of the others (ISO/IEC 7812-1)."""
    return (sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))) % 10 == 0


def iban_is_valid(compact: str) -> bool:
    """True if `compact` (no spaces, upper case) has its country's length and the ISO 7064 check digits."""
    if IBAN_LENGTHS.get(compact[:2]) != len(compact) or not compact.isascii() or not compact.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def weighted(digits: str, weights: Sequence[int]) -> int:
    """Sum of digit times weight, over the shorter of the two."""
    return sum(int(d) * w for d, w in zip(digits, weights, strict=False))


def mod11_10(digits: str) -> bool:
    """ISO 7064 mod 11, 10: the last digit checks the others."""
    product = 10
    for char in digits[:-1]:
        product = ((int(char) + product) % 10 or 10) * 2 % 11
    return (product + int(digits[-1])) % 10 == 1


_PERMUTED = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip
_PRODUCT = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678", "5987604321", "6598710432", "7659821043",
    "8765932104", "9876543210",
)  # fmt: skip


def verhoeff(digits: str) -> bool:
    """True if the last digit is Verhoeff's check digit (Verhoeff 1969, over the dihedral group D5)."""
    state = 0
    for place, char in enumerate(reversed(digits)):
        state = int(_PRODUCT[state][int(_PERMUTED[place % 8][int(char)])])
    return state == 0


def is_day(month: int, day: int) -> bool:
    """True if a year can have that day."""
    return 1 <= month <= 12 and 1 <= day <= (29 if month == 2 else 30 if month in (4, 6, 9, 11) else 31)


def issuer(digits: str, *, sure: bool) -> bool:
    """True if the first digits belong to a payment card network of that length.

    Args:
        digits: 12 to 19 of them.
        sure: only lengths in use today; 13-digit Visa and short Maestro numbers look like any order number.
    """
    length, two, four = len(digits), int(digits[:2]), int(digits[:4])
    lengths = (16, 19) if sure else (16, 17, 18, 19)
    if digits[0] == "4":
        return length in (16, 19) or (length == 13 and not sure)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (34, 37):
        return length == 15
    if two in (36, 38, 39) or 300 <= int(digits[:3]) <= 305:
        return length == 14 or length in lengths
    if two in (35, 60, 62, 64, 65, 81) or 2200 <= four <= 2204:
        return length in lengths
    if four == 9792:
        return length == 16
    return two in (50, 56, 57, 58, 61, 63, 66, 67, 68, 69) and (16 if sure else 12) <= length <= 19
