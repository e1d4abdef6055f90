"""National identification numbers with right check digits, by country, and how people mention them.

Written from the issuers' published rules and without a line of `data_contracts.redaction`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from redaction_values import digits

Id = tuple[str, str]
"""How the number is called there, and the number as it is written."""


def _weighted(number: str, weights: str | list[int]) -> int:
    return sum(int(d) * int(w) for d, w in zip(number, weights, strict=False))


def _birth(rng: random.Random) -> tuple[str, str, str]:
    return f"{rng.randint(40, 99):02d}", f"{rng.randint(1, 12):02d}", f"{rng.randint(1, 28):02d}"


def _until(make: Callable[[], str | None]) -> str:
    while True:
        value = make()
        if value is not None:
            return value


def us(rng: random.Random) -> str:
    """Social security number, by structure: area, group, serial."""
    return f"{rng.choice([*range(1, 666), *range(667, 900)]):03d}{rng.randint(1, 99):02d}{rng.randint(1, 9999):04d}"


def nino(rng: random.Random) -> str:
    """UK national insurance number."""
    return rng.choice(["AB", "CE", "JH", "PW", "SR", "XY", "NM"]) + digits(rng, 6) + rng.choice("ABCD")


def nhs(rng: random.Random) -> str:
    """UK health number: 11 minus the weighted sum mod 11; 10 is never issued."""

    def one() -> str | None:
        body = digits(rng, 9, "4679")
        check = (11 - _weighted(body, list(range(10, 1, -1))) % 11) % 11
        return None if check == 10 else body + str(check)

    return _until(one)


def steuer_id(rng: random.Random) -> str:
    """German tax id: one digit of the first ten twice, ISO 7064 mod 11, 10."""
    pool = list("0123456789")
    rng.shuffle(pool)
    pool[rng.randint(1, 8)] = pool[9]
    if pool[0] == "0":
        pool[0], pool[1] = pool[1], pool[0]
    if pool[0] == "0":
        return steuer_id(rng)
    product = 10
    for char in pool[:10]:
        total = (int(char) + product) % 10 or 10
        product = total * 2 % 11
    return "".join(pool[:10]) + str((11 - product) % 10)


def nir(rng: random.Random) -> str:
    """French social security number: 97 minus the first 13 mod 97."""
    year, month, _ = _birth(rng)
    body = rng.choice("12") + year + month + f"{rng.randint(1, 95):02d}" + digits(rng, 6)
    return body + f"{97 - int(body) % 97:02d}"


def dni(rng: random.Random) -> str:
    """Spanish identity number."""
    body = digits(rng, 8)
    return body + "TRWAGMYFPDXBNJZSQVHLCKE"[int(body) % 23]


def nie(rng: random.Random) -> str:
    """Spanish foreigner's number."""
    first, body = rng.randint(0, 2), digits(rng, 7)
    return "XYZ"[first] + body + "TRWAGMYFPDXBNJZSQVHLCKE"[int(str(first) + body) % 23]


_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15,
    17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23], strict=True))  # fmt: skip


def codice_fiscale(rng: random.Random) -> str:
    """Italian tax code, 16 characters."""
    letters = "BCDFGLMNPRSTVZ"
    body = "".join(rng.choices(letters, k=6)) + f"{rng.randint(40, 99):02d}" + rng.choice("ABCDEHLMPRST")
    body += f"{rng.randint(1, 28) + rng.choice((0, 40)):02d}" + rng.choice("ABCDEFGHIL") + f"{rng.randint(1, 999):03d}"
    even = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    total = sum(
        _ODD[c] if place % 2 == 0 else (int(c) if c.isdigit() else even.index(c) - 10) for place, c in enumerate(body)
    )
    return body + chr(65 + total % 26)


def bsn(rng: random.Random) -> str:
    """Dutch citizen number: the eleven test."""

    def one() -> str | None:
        body = digits(rng, 8, "12345678")
        check = _weighted(body, "98765432") % 11
        return None if check == 10 else body + str(check)

    return _until(one)


def belgian(rng: random.Random) -> str:
    """Belgian national register number (born before 2000)."""
    body = "".join(_birth(rng)) + f"{rng.randint(1, 997):03d}"
    return body + f"{97 - int(body) % 97:02d}"


def pesel(rng: random.Random) -> str:
    """Polish PESEL."""
    body = "".join(_birth(rng)) + digits(rng, 4)
    return body + str(-_weighted(body, "1379137913") % 10)


def swedish(rng: random.Random) -> str:
    """Swedish personal number, ten digits."""
    body = "".join(_birth(rng)) + digits(rng, 3)
    total = sum(n // 10 + n % 10 for n in (int(d) * (2 - place % 2) for place, d in enumerate(body)))
    return body + str(-total % 10)


def norwegian(rng: random.Random) -> str:
    """Norwegian birth number with both check digits."""

    def one() -> str | None:
        year, month, day = _birth(rng)
        body = day + month + year + digits(rng, 3, "01234")
        first = -_weighted(body, [3, 7, 6, 1, 8, 9, 4, 5, 2]) % 11
        second = -_weighted(body + str(first), [5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11
        return None if 10 in (first, second) else f"{body}{first}{second}"

    return _until(one)


def danish(rng: random.Random) -> str:
    """Danish CPR: date and serial, no check digit since 2007."""
    year, month, day = _birth(rng)
    return day + month + year + digits(rng, 4)


def finnish(rng: random.Random) -> str:
    """Finnish personal identity code."""
    year, month, day = _birth(rng)
    serial = f"{rng.randint(2, 899):03d}"
    return f"{day}{month}{year}-{serial}" + "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(day + month + year + serial) % 31]


def nif(rng: random.Random) -> str:
    """Portuguese tax number of a person."""
    body = digits(rng, 8, "12")
    rest = _weighted(body, "98765432") % 11
    return body + str(0 if rest < 2 else 11 - rest)


def cpf(rng: random.Random) -> str:
    """Brazilian CPF."""
    body = digits(rng, 9)
    for start in (10, 11):
        rest = _weighted(body, list(range(start, 1, -1))) * 10 % 11
        body += str(rest % 10)
    return body


def sin(rng: random.Random) -> str:
    """Canadian social insurance number."""
    body = digits(rng, 8, "1234567")
    total = sum(n // 10 + n % 10 for n in (int(d) * (1 + place % 2) for place, d in enumerate(body)))
    return body + str(-total % 10)


def _dihedral(a: int, b: int) -> int:
    """Product in the dihedral group of the pentagon, elements 0-9 (5 and up are reflections)."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b - 5) % 5
    return 5 + (a - 5 - b) % 5 if b < 5 else (a - b) % 5


def aadhaar(rng: random.Random) -> str:
    """Indian Aadhaar: Verhoeff's check digit over the dihedral group."""
    step = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]
    body = digits(rng, 11, "23456789")
    for check in "0123456789":
        total = 0
        for place, char in enumerate(reversed(body + check)):
            value = int(char)
            for _ in range(place % 8):
                value = step[value]
            total = _dihedral(total, value)
        if total == 0:
            return body + check
    raise AssertionError("one of ten digits fits")


def tfn(rng: random.Random) -> str:
    """Australian tax file number, nine digits."""

    def one() -> str | None:
        body = digits(rng, 9, "123456789")
        return body if _weighted(body, [1, 4, 3, 7, 5, 8, 6, 9, 10]) % 11 == 0 else None

    return _until(one)


def ahv(rng: random.Random) -> str:
    """Swiss AHV number: an EAN-13 that starts with 756."""
    body = "756" + digits(rng, 9)
    return body + str(-_weighted(body, "131313131313") % 10)


def turkish(rng: random.Random) -> str:
    """Turkish identity number."""
    d = [int(c) for c in digits(rng, 9, "123456789")]
    tenth = (7 * sum(d[0::2]) - sum(d[1::2])) % 10
    return "".join(map(str, [*d, tenth, (sum(d) + tenth) % 10]))


def cut(value: str, *lengths: int, by: str) -> str:
    """Groups of these lengths with a separator."""
    out = []
    for length in lengths:
        out.append(value[:length])
        value = value[length:]
    return by.join(out) + value


_R = random.Random
FIRST: dict[str, Callable[[_R], Id]] = {
    "us": lambda r: ("SSN", cut(us(r), 3, 2, 4, by="-")),
    "nino": lambda r: ("National Insurance number", cut(nino(r), 2, 2, 2, 2, 1, by=" ")),
    "nhs": lambda r: ("NHS number", cut(nhs(r), 3, 3, 4, by=" ")),
    "de": lambda r: ("Steuer-ID", cut(steuer_id(r), 2, 3, 3, 3, by=" ")),
    "fr": lambda r: ("numéro de sécurité sociale", nir(r)),
    "es": lambda r: ("DNI", dni(r)),
    "nie": lambda r: ("NIE", nie(r)),
    "it": lambda r: ("codice fiscale", codice_fiscale(r)),
    "nl": lambda r: ("BSN", bsn(r)),
    "be": lambda r: ("rijksregisternummer", f"{cut(v := belgian(r), 2, 2, 2, by='.')[:8]}-{v[6:9]}.{v[9:]}"),
    "pl": lambda r: ("PESEL", pesel(r)),
    "se": lambda r: ("personnummer", cut(swedish(r), 6, 4, by="-")),
    "no": lambda r: ("fødselsnummer", norwegian(r)),
    "dk": lambda r: ("CPR-nummer", cut(danish(r), 6, 4, by="-")),
    "fi": lambda r: ("henkilötunnus", finnish(r)),
    "pt": lambda r: ("NIF", nif(r)),
    "br": lambda r: ("CPF", f"{cut(v := cpf(r), 3, 3, 3, by='.')[:11]}-{v[9:]}"),
    "ca": lambda r: ("SIN", cut(sin(r), 3, 3, 3, by=" ")),
    "in": lambda r: ("Aadhaar number", cut(aadhaar(r), 4, 4, 4, by=" ")),
    "au": lambda r: ("TFN", cut(tfn(r), 3, 3, 3, by=" ")),
    "ch": lambda r: ("AHV-Nummer", cut(ahv(r), 3, 4, 4, 2, by=".")),
    "tr": lambda r: ("TC kimlik no", turkish(r)),
}
SECOND: dict[str, Callable[[_R], Id]] = {
    "us_bare": lambda r: ("social security number", us(r)),
    "us_spaces": lambda r: ("social security no.", cut(us(r), 3, 2, 4, by=" ")),
    "nino_bare": lambda r: ("NI number", nino(r)),
    "nino_lower": lambda r: ("national insurance no", nino(r).lower()),
    "nhs_bare": lambda r: ("NHS no.", nhs(r)),
    "de_bare": lambda r: ("Steueridentifikationsnummer", steuer_id(r)),
    "fr_spaces": lambda r: ("NIR", cut(nir(r), 1, 2, 2, 2, 3, 3, 2, by=" ")),
    "es_dash": lambda r: ("documento de identidad", f"{(v := dni(r))[:8]}-{v[8]}"),
    "es_dots": lambda r: ("DNI", f"{(v := dni(r))[:2]}.{v[2:5]}.{v[5:8]}-{v[8]}"),
    "it_lower": lambda r: ("cod. fiscale", codice_fiscale(r).lower()),
    "nl_dots": lambda r: ("burgerservicenummer", cut(bsn(r), 4, 2, 3, by=".")),
    "be_bare": lambda r: ("numéro national", belgian(r)),
    "se_12": lambda r: ("personnummer", f"19{cut(swedish(r), 6, 4, by='-')}"),
    "no_space": lambda r: ("personnummer", cut(norwegian(r), 6, 5, by=" ")),
    "pt_spaces": lambda r: ("número de contribuinte", cut(nif(r), 3, 3, 3, by=" ")),
    "br_bare": lambda r: ("CPF", cpf(r)),
    "ca_dash": lambda r: ("social insurance number", cut(sin(r), 3, 3, 3, by="-")),
    "in_bare": lambda r: ("UIDAI number", aadhaar(r)),
    "au_bare": lambda r: ("tax file number", tfn(r)),
    "ch_bare": lambda r: ("numéro AVS", ahv(r)),
    "no_wide": lambda r: ("ID number", norwegian(r).translate({48 + i: 0xFF10 + i for i in range(10)})),
    "pl_zero_width": lambda r: ("PESEL", "\u200b".join(cut(pesel(r), 6, 5, by=" ").split())),
}
