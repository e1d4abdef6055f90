"""Personal data that never belonged to anybody: values whose check digits are right, by entity and format.

Written from the issuers' published rules and on purpose without a line of `data_contracts.redaction`. The detectors
were written with `FIRST` in view and corrected after a look at `SECOND`; later lots have a module of their own.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable
from typing import Any

Maker = Callable[[random.Random], str]


def digits(rng: random.Random, n: int, first: str = "0123456789") -> str:
    """`n` decimal digits; the first out of `first`."""
    return rng.choice(first) + "".join(rng.choices("0123456789", k=n - 1))


def _chars(rng: random.Random, n: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    token = "".join(rng.choices(alphabet, k=n - 3))
    return (
        token[: n // 2]
        + rng.choice([c for c in alphabet if c.isalpha()])
        + rng.choice("0123456789")
        + rng.choice("0123456789")
        + token[n // 2 :]
    )


def _cut(value: str, *lengths: int, by: str = " ") -> str:
    out, at = [], 0
    for length in lengths:
        out.append(value[at : at + length])
        at += length
    return by.join([*out, value[at:]] if value[at:] else out)


# --- e-mail, phone, network ----------------------------------------------------------------------

_FIRST = [
    "anna",
    "ben",
    "carla",
    "dmitri",
    "elif",
    "fatou",
    "george",
    "hiroko",
    "ines",
    "jack",
    "katya",
    "luis",
    "mira",
    "noor",
    "olga",
    "pedro",
]
_LAST = [
    "miller",
    "rossi",
    "tanaka",
    "schmidt",
    "dubois",
    "kowalski",
    "silva",
    "olsen",
    "novak",
    "garcia",
    "bianchi",
    "jansen",
]
_HOSTS = [
    "example.com",
    "mail.example.org",
    "example.co.uk",
    "web.example.net",
    "firma.example.de",
    "correo.example.es",
]


def _mail(pattern: str, hosts: tuple[str, ...] = tuple(_HOSTS)) -> Maker:
    def make(rng: random.Random) -> str:
        a, b = rng.choice(_FIRST), rng.choice(_LAST)
        return pattern.format(a=a, b=b, A=a.title(), B=b.title(), n=rng.randint(1, 2009), h=rng.choice(hosts))

    return make


def _dial(*patterns: str) -> Maker:
    """`#` any digit, `N` 2-9; everything else as it stands."""

    def make(rng: random.Random) -> str:
        pattern = rng.choice(patterns)
        return "".join(
            rng.choice("0123456789") if c == "#" else rng.choice("23456789") if c == "N" else c for c in pattern
        )

    return make


def _ip4(rng: random.Random) -> str:
    return ".".join(
        str(n) for n in (rng.randint(1, 254), rng.randint(0, 255), rng.randint(0, 255), rng.randint(1, 254))
    )


def _ip6(groups: int, upper: bool = False) -> Maker:
    def make(rng: random.Random) -> str:
        parts = [f"{rng.randint(1, 0xFFFF):x}" for _ in range(groups)]
        text = "2001:db8:" + ":".join(parts) if groups == 6 else "2001:db8::" + ":".join(parts)
        return text.upper() if upper else text

    return make


# --- cards and accounts --------------------------------------------------------------------------


def _with_luhn(body: str) -> str:
    total = 0
    for place, char in enumerate(reversed(body + "0")):
        n = int(char) * (2 if place % 2 else 1)
        total += n // 10 + n % 10
    return body + str(-total % 10)


def _card(prefixes: tuple[str, ...], length: int, *cut: int, by: str = " ") -> Maker:
    def make(rng: random.Random) -> str:
        start = rng.choice(prefixes)
        number = _with_luhn(start + digits(rng, length - 1 - len(start)))
        return _cut(number, *cut, by=by) if cut else number

    return make


_VISA, _MASTER, _AMEX = ("4",), ("51", "53", "55", "2221", "2720"), ("34", "37")
_BBAN = {
    "DE": "n18", "FR": "n10c11n2", "GB": "a4n14", "ES": "n20", "IT": "a1n10c12", "NL": "a4n10", "BE": "n12",
        "AT": "n16",
    "CH": "n5c12", "PL": "n24", "SE": "n20", "NO": "n11", "DK": "n14", "FI": "n14", "PT": "n21", "IE": "a4n14",
    "MT": "a4n5c18", "LU": "n3c13", "CZ": "n20", "SA": "n2c18", "BR": "n23a1c1",
}  # fmt: skip


def _iban(spaced: str = "", lower: bool = False, countries: tuple[str, ...] = tuple(_BBAN)) -> Maker:
    def make(rng: random.Random) -> str:
        country = rng.choice(countries)
        bban, spec = "", _BBAN[country]
        while spec:
            kind, rest = spec[0], spec[1:]
            size = "".join(c for c in rest[:2] if c.isdigit())
            spec = rest[len(size) :]
            pool = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}[kind]
            bban += "".join(rng.choices(pool, k=int(size)))
        as_number = int(
            "".join(str(string.digits.find(c) if c.isdigit() else ord(c) - 55) for c in bban + country) + "00"
        )
        text = f"{country}{98 - as_number % 97:02d}{bban}"
        text = _cut(text, *([4] * (len(text) // 4)), by=spaced) if spaced else text
        return text.lower() if lower else text

    return make


# --- secrets -------------------------------------------------------------------------------------

_HEX = "0123456789abcdef"


def _secret(prefix: str, n: int, alphabet: str = string.ascii_letters + string.digits) -> Maker:
    return lambda rng: prefix + _chars(rng, n, alphabet)


def _jwt(rng: random.Random) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    head, body = b'{"alg":"HS256","typ":"JWT"}', f'{{"sub":"{digits(rng, 9)}"}}'.encode()
    return ".".join((part(head), part(body), part(rng.randbytes(32))))


def _pem(rng: random.Random) -> str:
    body = base64.b64encode(rng.randbytes(96)).decode()
    return f"-----BEGIN PRIVATE KEY-----\n{body[:64]}\n{body[64:]}\n-----END PRIVATE KEY-----"


def _password(rng: random.Random) -> str:
    return (
        rng.choice(("Sommer", "hunter", "blueSky", "Tr0ub4dor", "qwerty"))
        + digits(rng, 3)
        + rng.choice(("!", "#", "", "x"))
    )


def _url(scheme: str, host: str, user: bool = True) -> Maker:
    def make(rng: random.Random) -> str:
        name = rng.choice(_FIRST) if user else ""
        return f"{scheme}://\x02{name}:{_chars(rng, 10)}\x03@{host}"

    return make


FIRST: dict[str, dict[str, Maker]] = {
    "EMAIL": {
        "plain": _mail("{a}@{h}"),
        "dotted": _mail("{a}.{b}@{h}"),
        "plus": _mail("{a}+shop{n}@{h}"),
        "title": _mail("{A}.{B}{n}@{h}"),
        "under": _mail("{b}_{a}-{n}@{h}"),
        "bracket_at": _mail("{a}.{b} (at) {h}"),
        "zero_width": _mail("{a}\u200b.{b}@exam\u200bple.com"),
        "wide_at": _mail("{a}{n}\uff20{h}"),
    },
    "PHONE": {
        "de": _dial("+49 30 N######", "+49 (0)89 N#####-##", "0049 171 N######", "030/N######", "0171 N######"),
        "us": _dial("(N##) N##-####", "N##-N##-####", "+1 N## N## ####", "1-N##-N##-####", "+1N##N######"),
        "uk": _dial("+44 20 7### ####", "020 7### ####", "07### ######", "+447#########"),
        "fr": _dial("01 ## ## ## ##", "06.##.##.##.##", "+33 6 ## ## ## ##"),
        "nl_be": _dial("06-########", "+31 6 ########", "0475 ## ## ##", "+32 475 ## ## ##"),
        "in": _dial("+91 9#### #####", "098### #####"),
        "au_nz": _dial("04## ### ###", "(02) 9### ####", "+61 4## ### ###"),
        "wide_digits": _dial("+\uff14\uff19 \uff13\uff10 N######"),
    },
    "CARD": {
        "visa": _card(_VISA, 16),
        "visa_4": _card(_VISA, 16, 4, 4, 4, 4),
        "visa_dash": _card(_VISA, 16, 4, 4, 4, 4, by="-"),
        "master_4": _card(_MASTER, 16, 4, 4, 4, 4),
        "amex": _card(_AMEX, 15),
        "amex_465": _card(_AMEX, 15, 4, 6, 5),
        "discover": _card(("6011", "65"), 16, 4, 4, 4, 4),
        "nbsp": _card(_VISA, 16, 4, 4, 4, 4, by="\u00a0"),
        "jcb": _card(("3528", "3589"), 16),
    },
    "IBAN": {"plain": _iban(), "by_4": _iban(" "), "lower": _iban(lower=True)},
    "IP": {"v4": _ip4, "v6_short": _ip6(2), "v6_long": _ip6(6)},
    "KEY": {
        "openai": _secret("sk-", 40),
        "github": _secret("ghp_", 36),
        "aws": _secret("AKIA", 16, string.ascii_uppercase + string.digits),
        "slack": _secret("xoxb-", 40, string.digits + "abcdef-"),
        "google": _secret("AIza", 35),
        "hf": _secret("hf_", 34),
        "jwt": _jwt,
        "pem": _pem,
        "random": _secret("", 44),
        "password": lambda rng: f"password: \x02{_password(rng)}\x03",
        "api_key": lambda rng: f"api_key=\x02{_chars(rng, 24)}\x03",
        "bearer": lambda rng: f"Authorization: Bearer \x02{_chars(rng, 30)}\x03",
    },
    "CREDENTIALS": {
        "https": _url("https", "shop.example.com/x"),
        "postgres": _url("postgresql", "db.internal:5432/app"),
        "ftp": _url("ftp", "files.example.org"),
    },
}
"""Formats the detectors were written with in view. Between \\x02 and \\x03 stands the value, else it is all of it."""

SECOND: dict[str, dict[str, Maker]] = {
    "EMAIL": {
        "angle": lambda rng: f"{rng.choice(_FIRST).title()} <\x02{_mail('{a}@{h}')(rng)}\x03>",
        "mailto": lambda rng: f"mailto:\x02{_mail('{a}.{b}@{h}')(rng)}\x03?subject=hi",
        "json": lambda rng: f'{{"email":"\x02{_mail("{a}{n}@{h}")(rng)}\x03"}}',
        "upper": lambda rng: _mail("{a}.{b}@{h}")(rng).upper(),
        "idn": _mail("{a}@{h}", ("b\u00fccher.example", "\u043f\u043e\u0447\u0442\u0430.example")),
        "long_tld": _mail("{n}{a}@{b}.photography", ("x",)),
        "square_at": _mail("{a}[at]{b}[dot]example[dot]com", ("x",)),
        "decomposed": _mail("{a}.mu\u0308ller@{h}"),
    },
    "PHONE": {
        "at_ch": _dial("0664/#######", "+43 664 #######", "079 ### ## ##", "+41 79 ### ## ##"),
        "ru_cn": _dial("+7 (9##) ###-##-##", "8 (9##) ###-##-##", "+86-138-####-####", "+86 1391#######"),
        "es_pt_it": _dial("(+34) 6## ## ## ##", "+351 91# ### ###", "+39 02 #######", "+39 34# ### ####"),
        "gulf": _dial("+971 50 ### ####", "+966-5#-###-####", "00971 4 ### ####"),
        "us_dots": _dial("1.800.N##.####", "N##.N##.####", "+1 (N##) N##-#### ext. ##"),
        "uk_zero": _dial("+44 (0) 20 7### ####", "00 44 20 7### ####", "(020) 7### ####"),
        "jp_br": _dial("+81 90-####-####", "090-####-####", "(11) 9####-####", "+55 11 9####-####"),
        "uri": _dial("tel:\x02+1-N##-N##-####\x03"),
    },
    "CARD": {
        "dots": _card(_VISA + _MASTER, 16, 4, 4, 4, 4, by="."),
        "amex_dash": _card(_AMEX, 15, 4, 6, 5, by="-"),
        "diners": _card(("36", "305"), 14, 4, 6, 4),
        "unionpay_19": _card(("62",), 19),
        "expiry": lambda rng: (
            f"\x02{_card(_VISA, 16, 4, 4, 4, 4)(rng)}\x03 exp {rng.randint(1, 12):02d}/29 cvv {digits(rng, 3)}"
        ),
        "thin_space": _card(_MASTER, 16, 4, 4, 4, 4, by="\u2009"),
        "zero_width": _card(_VISA, 16, 4, 4, 4, 4, by="\u200b"),
    },
    "IBAN": {
        "dash": _iban("-"),
        "nbsp": _iban("\u00a0"),
        "colon": lambda rng: f"IBAN:\x02{_iban()(rng)}\x03",
        "lower_by_4": _iban(" ", lower=True),
    },
    "IP": {
        "port": lambda rng: f"\x02{_ip4(rng)}\x03:{rng.randint(80, 9999)}",
        "cidr": lambda rng: f"\x02{_ip4(rng)}\x03/24",
        "log": lambda rng: f"client=\x02{_ip4(rng)}\x03; status=502",
        "v6_bracket": lambda rng: f"[\x02{_ip6(3)(rng)}\x03]:443",
        "v6_upper": _ip6(6, upper=True),
        "mapped": lambda rng: f"::ffff:{_ip4(rng)}",
    },
    "KEY": {
        "openai_project": _secret("sk-proj-", 60),
        "gitlab": _secret("glpat-", 20),
        "shopify": _secret("shpat_", 32, _HEX),
        "digitalocean": _secret("dop_v1_", 64, _HEX),
        "stripe": _secret("rk_live_", 24),
        "x_api_key": lambda rng: f"x-api-key: \x02{_chars(rng, 32, _HEX)}\x03",
        "env": lambda rng: f"export DB_PASSWORD=\x02{_password(rng)}\x03",
        "json": lambda rng: f'"client_secret": "\x02{_chars(rng, 28)}\x03"',
        "german": lambda rng: f"mein Passwort ist \x02{_password(rng)}\x03",
        "azure": lambda rng: f"AccountKey=\x02{base64.b64encode(rng.randbytes(64)).decode()}\x03",
    },
    "CREDENTIALS": {
        "mongo": _url("mongodb+srv", "cluster0.example.net/test"),
        "redis": _url("redis", "10.example.net:6379/0", user=False),
        "escaped": lambda rng: f"https://\x02{rng.choice(_FIRST)}:p%40{_chars(rng, 6)}\x03@git.example.com/x.git",
    },
}
"""Formats written before the detectors and looked at after their first run over them."""


def pick(rng: random.Random, table: dict[str, dict[str, Any]], entity: str) -> tuple[str, Any]:
    """A format of the entity: its name and maker."""
    name = rng.choice(sorted(table[entity]))
    return name, table[entity][name]
