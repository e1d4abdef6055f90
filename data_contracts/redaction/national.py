"""National identification numbers: by shape, date of birth and check digits; the weak ones only where they are named.

A number whose check alone is right once in ten by chance would redact every tenth order number, so it needs a word
such as `BSN` or `tax file number` near it. Sources: the issuers' published rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from data_contracts.redaction.checks import is_day, luhn, mod11_10, verhoeff, weighted

Check = Callable[[str], bool]


def _ymd(d: str) -> bool:
    return is_day(int(d[2:4]), int(d[4:6]))


def _dmy(d: str) -> bool:
    return is_day(int(d[2:4]), int(d[0:2]))


def us_ssn(d: str) -> bool:
    """United States: area, group and serial that can be issued (no check digit)."""
    return d[:3] not in ("000", "666") and d[0] != "9" and d[3:5] != "00" and d[5:] != "0000"


def uk_nhs(d: str) -> bool:
    """United Kingdom, health: weights 10 to 2, mod 11."""
    return (11 - weighted(d[:9], range(10, 1, -1)) % 11) % 11 == int(d[9])


def de_tax(d: str) -> bool:
    """Germany, tax: of the first ten digits exactly one comes twice or three times; ISO 7064 mod 11, 10."""
    counts = sorted((d[:10].count(c) for c in set(d[:10])), reverse=True)
    return d[0] != "0" and counts[0] in (2, 3) and counts[1] == 1 and mod11_10(d)


def fr_nir(d: str) -> bool:
    """France: sex, year, month, place; 97 minus the rest mod 97."""
    return d[0] in "12" and (1 <= int(d[3:5]) <= 12 or 20 <= int(d[3:5]) <= 42) and 97 - int(d[:13]) % 97 == int(d[13:])


def fr_open(d: str) -> bool:
    """France: the number as it is often given, without its two check digits."""
    return d[0] in "12" and 1 <= int(d[3:5]) <= 12


def nl_bsn(d: str) -> bool:
    """Netherlands: the eleven test."""
    return (weighted(d[:8], range(9, 1, -1)) - int(d[8])) % 11 == 0 and int(d) > 0


def be_nn(d: str) -> bool:
    """Belgium: date, serial, 97 minus the rest mod 97 (born from 2000 on with a 2 in front)."""
    month = int(d[2:4]) % 20
    if not (is_day(month, int(d[4:6])) or month == 0):
        return False
    return int(d[9:]) in (97 - int(d[:9]) % 97, 97 - int("2" + d[:9]) % 97)


def pl_pesel(d: str) -> bool:
    """Poland: date with the century in the month, weights 1 3 7 9."""
    return is_day(int(d[2:4]) % 20, int(d[4:6])) and weighted(d, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0


def se_pnr(d: str) -> bool:
    """Sweden: date (day + 60 for coordination numbers), Luhn over the last ten digits."""
    d = d[-10:]
    return is_day(int(d[2:4]), int(d[4:6]) % 60) and luhn(d)


def dk_cpr(d: str) -> bool:
    """Denmark: a date; numbers since 2007 need not pass the old mod 11."""
    return _dmy(d)


def no_fnr(d: str) -> bool:
    """Norway: date (day + 40 for D-numbers) and two mod 11 check digits."""
    if not is_day(int(d[2:4]) % 40, int(d[:2]) % 40):
        return False
    first, second = (3, 7, 6, 1, 8, 9, 4, 5, 2, 1), (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)
    return weighted(d, first) % 11 == 0 and weighted(d, second) % 11 == 0


def pt_nif(d: str) -> bool:
    """Portugal, tax: weights 9 to 2, mod 11, 10 written as 0."""
    rest = weighted(d[:8], range(9, 1, -1)) % 11
    return d[0] in "1235689" and int(d[8]) == (0 if rest < 2 else 11 - rest)


def br_cpf(d: str) -> bool:
    """Brazil: two mod 11 check digits."""
    if len(set(d)) == 1:
        return False
    return all(weighted(d[:n], range(n + 1, 1, -1)) * 10 % 11 % 10 == int(d[n]) for n in (9, 10))


def ca_sin(d: str) -> bool:
    """Canada: Luhn; no number starts with 8 or 0."""
    return d[0] not in "08" and luhn(d)


def in_aadhaar(d: str) -> bool:
    """India: Verhoeff; the first digit is 2 to 9."""
    return d[0] not in "01" and verhoeff(d)


def au_tfn(d: str) -> bool:
    """Australia, tax: weights 1 4 3 7 5 8 6 9 10, mod 11."""
    return weighted(d, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0 and int(d) > 0


def ch_ahv(d: str) -> bool:
    """Switzerland: an EAN-13 that starts with 756."""
    return d.startswith("756") and weighted(d, (1, 3) * 6 + (1,)) % 10 == 0


def tr_tckn(d: str) -> bool:
    """Turkey: two check digits."""
    n = [int(c) for c in d]
    return n[0] != 0 and (7 * sum(n[0:9:2]) - sum(n[1:8:2])) % 10 == n[9] and sum(n[:10]) % 10 == n[10]


def at_svnr(d: str) -> bool:
    """Austria: the fourth digit checks serial and date."""
    month = int(d[6:8])
    return (
        1 <= month <= 15
        and 1 <= int(d[4:6]) <= 31
        and weighted(d[:3] + d[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11 == int(d[3])
    )


def cz_rc(d: str) -> bool:
    """Czechia and Slovakia: date (month + 50 for women), the whole a multiple of 11."""
    return is_day(int(d[2:4]) % 50 % 20, int(d[4:6])) and int(d) % 11 == 0


def bg_egn(d: str) -> bool:
    """Bulgaria: date, weights, mod 11 mod 10."""
    day = is_day(int(d[2:4]) % 20, int(d[4:6]))
    return day and weighted(d[:9], (2, 4, 8, 5, 10, 9, 7, 3, 6)) % 11 % 10 == int(d[9])


def ro_cnp(d: str) -> bool:
    """Romania: sex, date, weights 279146358279, mod 11, 10 written as 1."""
    rest = weighted(d[:12], (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    return d[0] != "0" and is_day(int(d[3:5]), int(d[5:7])) and (1 if rest == 10 else rest) == int(d[12])


def ee_lt(d: str) -> bool:
    """Estonia and Lithuania: sex and century, date, two-step mod 11."""
    rest = weighted(d[:10], (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if rest == 10:
        rest = weighted(d[:10], (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return d[0] in "12345678" and is_day(int(d[3:5]), int(d[5:7])) and rest == int(d[10])


def gr_amka(d: str) -> bool:
    """Greece: date and Luhn."""
    return _dmy(d) and luhn(d)


def za_id(d: str) -> bool:
    """South Africa: date, citizenship, Luhn."""
    return _ymd(d) and d[10] in "012" and luhn(d)


def cn_ric(d: str) -> bool:
    """China: region, full date, ISO 7064 mod 11, 2 (the last character may be X)."""
    if d[0] not in "12345678" or d[6:8] not in ("18", "19", "20") or not is_day(int(d[10:12]), int(d[12:14])):
        return False
    rest = weighted(d[:17], (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)) % 11
    return "10X98765432"[rest] == d[17].upper()


def kr_rrn(d: str) -> bool:
    """South Korea: date and sex with century (no check digit since 2020)."""
    return _ymd(d) and d[6] in "12345678"


def jp_my_number(d: str) -> bool:
    """Japan: weights 6 5 4 3 2 7 6 5 4 3 2, mod 11."""
    rest = weighted(d[:11], (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return int(d[11]) == (0 if rest < 2 else 11 - rest)


def th_id(d: str) -> bool:
    """Thailand: weights 13 to 2, mod 11."""
    return d[0] != "0" and (11 - weighted(d[:12], range(13, 1, -1)) % 11) % 10 == int(d[12])


SURE: dict[tuple[int, ...], tuple[Check, ...]] = {
    (3, 2, 4): (us_ssn,),
    (6, 4): (se_pnr, cz_rc),
    (8, 4): (se_pnr,),
    (4, 6): (at_svnr,),
    (11,): (no_fnr, be_nn, de_tax, ee_lt, gr_amka),
    (2, 3, 3, 3): (de_tax,),
    (3, 3, 3, 2): (br_cpf,),
    (2, 2, 2, 3, 2): (be_nn,),
    (6, 3, 2): (be_nn,),
    (6, 5): (no_fnr, pl_pesel),
    (13,): (ch_ahv, za_id),
    (3, 4, 4, 2): (ch_ahv,),
    (6, 4, 3): (za_id,),
    (6, 4, 2, 1): (za_id,),
    (1, 4, 5, 2, 1): (th_id,),
    (15,): (fr_nir,),
    (13, 2): (fr_nir,),
    (1, 2, 2, 2, 3, 3, 2): (fr_nir,),
    (18,): (cn_ric,),
    (6, 7): (kr_rrn,),
}
"""By the lengths of the groups of digits: right by chance in less than one of a hundred, so taken
unless it is called an order, a parcel, a telephone number or the like."""

LIKELY: dict[tuple[int, ...], tuple[Check, ...]] = {(11,): (br_cpf, tr_tckn, pl_pesel), (9, 2): (br_cpf,)}
"""Right by chance in about one of a hundred."""

_NINE = (us_ssn, nl_bsn, pt_nif, ca_sin, au_tfn, luhn)
_TEN = (uk_nhs, se_pnr, dk_cpr, bg_egn, at_svnr, cz_rc)
_TWELVE = (in_aadhaar, se_pnr, jp_my_number)
NAMED: dict[tuple[int, ...], tuple[Check, ...]] = {
    (9,): _NINE,
    (3, 3, 3): _NINE,
    (4, 2, 3): _NINE,
    (2, 3, 2, 2): _NINE,
    (10,): _TEN,
    (3, 3, 4): _TEN,
    (6, 4): _TEN,
    (11,): (mod11_10,),
    (12,): _TWELVE,
    (4, 4, 4): _TWELVE,
    (8, 4): (se_pnr,),
    (13,): (th_id, kr_rrn, fr_open, ro_cnp),
    (1, 2, 2, 2, 3, 3): (fr_open,),
    (3, 3, 3, 2): (tr_tckn,),
}
"""Only where the text names such a number."""

GROUPED = {
    9: _NINE,
    10: _TEN,
    11: (no_fnr, be_nn, de_tax, ee_lt, gr_amka, br_cpf, tr_tckn, pl_pesel),
    12: _TWELVE,
    13: (ch_ahv, za_id, th_id, ro_cnp, kr_rrn),
    15: (fr_nir,),
}
"""By the number of digits: where the text names such a number its groups may be anybody's own."""

_DNI = "TRWAGMYFPDXBNJZSQVHLCKE"
_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
         10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def es_dni(v: str) -> bool:
    """Spain: a letter by mod 23; X, Y, Z in front (foreigners) count as 0, 1, 2."""
    return _DNI[int(v[:-1].translate(str.maketrans("XYZ", "012"))) % 23] == v[-1]


def it_cf(v: str) -> bool:
    """Italy, tax code: the last letter checks the others, odd and even places by different tables."""
    total = sum(_ODD[c] if n % 2 == 0 else int(c, 36) - 10 * c.isalpha() for n, c in enumerate(v[:15]))
    return chr(65 + total % 26) == v[15]


def fi_hetu(v: str) -> bool:
    """Finland: date, century sign, serial, check character mod 31."""
    digits = v[:6] + v[7:10]
    return _dmy(v) and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(digits) % 31] == v[10]


def uk_nino(v: str) -> bool:
    """United Kingdom, insurance: prefixes that are issued."""
    return v[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def sg_nric(v: str) -> bool:
    """Singapore: weights 2 7 6 5 4 3 2 and a letter by mod 11."""
    total = weighted(v[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(v[0], 0)
    table = "JZIHGFEDCBA" if v[0] in "ST" else "XWUTRQPNMLK"
    return v[0] == "M" or table[total % 11] == v[8]


def tw_id(v: str) -> bool:
    """Taiwan: the letter is a two-digit number, weights 1 9 8 7 6 5 4 3 2 1 1."""
    letter = 10 + "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(v[0])
    return weighted(f"{letter}{v[1:]}", (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0


def mx_curp(v: str) -> bool:
    """Mexico: letters, date, sex, state; weights 18 to 2."""
    order = "0123456789ABCDEFGHIJKLMN\u00d1OPQRSTUVWXYZ"
    total = sum(order.index(c) * (18 - n) for n, c in enumerate(v[:17]))
    return is_day(int(v[6:8]), int(v[8:10])) and (10 - total % 10) % 10 == int(v[17])


def de_sv(v: str) -> bool:
    """Germany, pension: the letter as two digits, weights 2 1 2 5 7 1 2 1 2 1 2 1, digit sums, mod 10."""
    digits = f"{v[:8]}{ord(v[8]) - 64:02d}{v[9:11]}"
    total = sum(n // 10 + n % 10 for n in map(lambda d, w: int(d) * w, digits, (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)))
    return total % 10 == int(v[11])


def cl_rut(v: str) -> bool:
    """Chile: weights 2 to 7 from the right, mod 11."""
    total = sum(int(d) * (2 + n % 6) for n, d in enumerate(reversed(v[:-1])))
    return "0123456789K0"[11 - total % 11] == v[-1]


def ie_pps(v: str) -> bool:
    """Ireland: weights 8 to 2, a second letter counts nine times, a letter by mod 23."""
    total = weighted(v[:7], range(8, 1, -1)) + (9 * (ord(v[8]) - 64) if len(v) == 9 else 0)
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == v[7]


_L = "0-9LMNPQRSTUV"
LETTERED = re.compile(
    r"(?:"
    rf"(?P<it>[A-Z]{{3}}[ \-]?[A-Z]{{3}}[ \-]?[{_L}]{{2}}[ABCDEHLMPRST][{_L}]{{2}}[ \-]?[A-Z][{_L}]{{3}}[A-Z])"
    r"|(?P<mx>[A-Z][AEIOUX][A-Z]{2}\d{6}[HMX][A-Z]{5}[A-Z0-9]\d)"
    r"|(?P<uk>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][ ]?\d\d[ ]?\d\d[ ]?\d\d[ ]?[A-D])"
    r"|(?P<ukset>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][.\-/]?\d\d[.\-/]?\d\d[.\-/]?\d\d[.\-/]?[A-D])"
    r"|(?P<es>(?:\d{8}|\d\d?\.\d{3}\.\d{3}|[XYZ][ \-]?\d{7})[ \-]?[A-HJ-NP-TV-Z])"
    r"|(?P<se>\d{6}\+\d{4})"
    r"|(?P<fi>\d{6}[\-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y])"
    r"|(?P<sg>[STFGM]\d{7}[A-Z])"
    r"|(?P<tw>[A-Z][1289]\d{8})"
    r"|(?P<hk>[A-Z]{1,2}\d{6}\([0-9A]\))"
    r"|(?P<pan>[A-Z]{3}P[A-Z]\d{4}[A-Z])"
    r"|(?P<desv>\d\d[ ]?\d{6}[ ]?[A-Z][ ]?\d{3})"
    r"|(?P<cn>\d{17}X)"
    r"|(?P<cl>(?:\d{1,2}\.\d{3}\.\d{3}|\d{7,8})-[\dK])"
    r"|(?P<ie>\d{7}[A-W][A-IW]?)"
    r")(?!\w)",
    re.I,
)
"""Numbers with letters in them, matched from their first character; the group says whose."""
STRUCTURED_LETTERS = frozenset({"it", "mx", "fi", "cn"})
"""So much structure that words around do not matter."""

LETTER_CHECKS: dict[str, tuple[Check, bool]] = {
    "it": (it_cf, True),
    "mx": (mx_curp, True),
    "uk": (uk_nino, True),
    "ukset": (uk_nino, False),
    "es": (es_dni, True),
    "se": (se_pnr, True),
    "fi": (fi_hetu, True),
    "sg": (sg_nric, True),
    "tw": (tw_id, False),
    "hk": (lambda _: True, True),
    "pan": (lambda _: True, True),
    "desv": (de_sv, True),
    "cn": (cn_ric, True),
    "cl": (cl_rut, True),
    "ie": (ie_pps, False),
}
"""The check, and whether it is taken without being named (unless it is called an order or the like)."""
