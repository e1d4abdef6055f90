"""Support-chat text with personal data planted at known places, and text that only looks like it.

Shares no code and no pattern with `data_contracts.redaction`. The same seed gives the same texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import redaction_fifth
import redaction_fourth
import redaction_ids
import redaction_seventh
import redaction_sixth
import redaction_third
import redaction_values
from redaction_values import digits

ENTITIES = ("CARD", "CREDENTIALS", "EMAIL", "IBAN", "IP", "KEY", "NATIONAL_ID", "PHONE")


@dataclass(frozen=True)
class Sample:
    """One text. `entity` is empty where nothing personal is in it; `start:end` are characters."""

    text: str
    entity: str = ""
    start: int = 0
    end: int = 0
    format: str = ""
    part: str = "first"


AROUND = {
    "EMAIL": ["My e-mail is {}.", "write to {} please", "Contact: {}", "{}", "({})",
        "Send the invoice to {}, thanks!", "Bitte an {} schicken.", "mi correo es {} gracias"],
    "PHONE": ["Call me at {} please", "My phone number is {}.", "Tel.: {}", "You can reach me on {}, after 5 pm.",
        "Meine Telefonnummer ist {}", "mon téléphone : {}", "mobile {}", "WhatsApp {} works too"],
    "CARD": ["My card number is {}", "charged twice on {}.", "card: {}", "{}", "Please remove {} from my account.",
        "Meine Kreditkarte {} wurde belastet"],
    "IBAN": ["IBAN {}", "Please refund to {}.", "my account is {}, thanks", "{}", "Bitte auf {} überweisen"],
    "IP": ["I connect from {}", "my IP is {}.", "host {} does not answer", "{}", "ping {} fails since noon"],
    "KEY": ["{}", "I use this one: {}", "It stopped working with {} today", "here: {} (please rotate)"],
    "CREDENTIALS": ["{}", "clone from {} fails", "we connect with {}.", "url = {}"],
    "NATIONAL_ID": ["My {name} is {}.", "{name}: {}", "here is my {name} {}", "{} is my {name}",
        "You asked for the {name}. It is {}, I hope that helps."],
}  # fmt: skip
"""Sentences around a value."""

_OPEN = ["", "", "Hello, ", "Hi team! ", "Guten Tag, ", "Thanks for the answer. ",
    "The lamp arrived broken on 12.03.2025. ", "Order 4471 is late. "]  # fmt: skip
_CLOSE = ["", "", " Thanks!", " It is urgent.", " Best, Mira", " (since 2024)", " I paid 1,299.00 EUR.",
    "\nVersion 2.4.1 here."]  # fmt: skip


PARTS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh")
"""In the order they were written; each was looked at after its first run, but for the last."""
_VALUES = {
    "first": redaction_values.FIRST,
    "second": redaction_values.SECOND,
    "third": redaction_third.FORMATS,
    "fourth": redaction_fourth.FORMATS,
    "fifth": redaction_fifth.FORMATS,
    "sixth": redaction_sixth.FORMATS,
    "seventh": redaction_seventh.FORMATS,
}
_NATIONAL = {
    "first": redaction_ids.FIRST,
    "second": redaction_ids.SECOND,
    "third": redaction_third.NATIONAL,
    "fourth": redaction_fourth.NATIONAL,
    "fifth": redaction_fifth.NATIONAL,
    "sixth": redaction_sixth.NATIONAL,
    "seventh": redaction_seventh.NATIONAL,
}
_AROUND = {
    "first": AROUND,
    "second": AROUND,
    "third": redaction_third.AROUND,
    "fourth": redaction_fourth.AROUND,
    "fifth": redaction_fifth.AROUND,
    "sixth": redaction_sixth.AROUND,
    "seventh": redaction_seventh.AROUND,
}


def _planted(rng: random.Random, entity: str, part: str) -> Sample:
    """A text with one value of the formats of that part."""
    frame = rng.choice(_AROUND[part][entity])
    if entity == "NATIONAL_ID":
        name = rng.choice(sorted(_NATIONAL[part]))
        called, value = _NATIONAL[part][name](rng)
        frame = frame.replace("{name}", called)
    else:
        name, make = redaction_values.pick(rng, _VALUES[part], entity)
        value = make(rng)
    if "\x02" not in value:
        value = f"\x02{value}\x03"
    marked = rng.choice(_OPEN) + frame.replace("{}", value) + rng.choice(_CLOSE)
    start, end = marked.index("\x02"), marked.index("\x03") - 1
    return Sample(marked.replace("\x02", "").replace("\x03", ""), entity, start, end, name, part)


# --- what only looks like it ---------------------------------------------------------------------


def _hex(rng: random.Random, n: int) -> str:
    return "".join(rng.choices("0123456789abcdef", k=n))


def _uuid(rng: random.Random) -> str:
    return "-".join(_hex(rng, n) for n in (8, 4, 4, 4, 12))


def _day(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(1990, 2026), rng.randint(1, 12), rng.randint(1, 28)


def _date(rng: random.Random) -> str:
    y, m, d = _day(rng)
    form = rng.choice(
        ["{y}-{m:02d}-{d:02d}", "{d:02d}.{m:02d}.{y}", "{m:02d}/{d:02d}/{y}", "{d} {m} {y}", "{y}{m:02d}{d:02d}"]
    )
    return form.format(y=y, m=m, d=d)


def _clock(rng: random.Random) -> str:
    return f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"


_UP = "ABCDEFGHJKLMNPRSTUVWXYZ"
NEGATIVES: dict[str, list[Callable[[random.Random], str]]] = {
    "order": [
        lambda r: f"order number {digits(r, r.randint(5, 12), '123456789')}",
        lambda r: f"Order #{digits(r, 3)}-{digits(r, 7)}-{digits(r, 7)} is late",
        lambda r: f"invoice {r.randint(2019, 2026)}-{digits(r, 6)}",
        lambda r: f"ticket {''.join(r.choices(_UP, k=3))}-{digits(r, 5)}",
        lambda r: f"customer no. {digits(r, 8, '123456789')}",
        lambda r: f"SKU {''.join(r.choices(_UP, k=2))}{digits(r, 6)}-{r.choice('XYZ')}",
    ],
    "version": [
        lambda r: f"version {r.randint(1, 20)}.{r.randint(0, 30)}.{r.randint(0, 99)}",
        lambda r: f"v{r.randint(1, 9)}.{r.randint(0, 9)}.{r.randint(0, 9)}.{r.randint(0, 250)} of the app",
        lambda r: f"firmware version {r.randint(1, 9)}.{r.randint(0, 9)}.{r.randint(0, 99)}.{r.randint(0, 250)}",
        lambda r: f"npm install lodash@{r.randint(1, 9)}.{r.randint(0, 30)}.{r.randint(0, 40)}",
        lambda r: f"Chrome {r.randint(90, 140)}.0.{r.randint(1000, 7000)}.{r.randint(10, 200)}",
    ],
    "date": [
        lambda r: f"delivered on {_date(r)} at {_clock(r)}",
        lambda r: f"{_date(r)} {_clock(r)} to {_date(r)}",
        lambda r: f"between {r.randint(1990, 2010)}-{r.randint(2011, 2026)}",
        lambda r: f"timestamp {r.randint(1_500_000_000, 1_790_000_000)}",
        lambda r: f"at {r.randint(1_500_000_000_000, 1_790_000_000_000)} ms",
    ],
    "price": [
        lambda r: f"it costs {r.randint(1, 9)},{digits(r, 3)}.{digits(r, 2)} EUR",
        lambda r: f"${digits(r, 3, '123456789')}.{digits(r, 2)} plus {r.randint(1, 30)} % tax",
        lambda r: f"{r.randint(1, 9)} {digits(r, 3)} {digits(r, 3)} kr in total",
        lambda r: f"1.{digits(r, 3)}.{digits(r, 3)},{digits(r, 2)} €",
    ],
    "digest": [
        lambda r: f"request {_uuid(r)}",
        lambda r: f"commit {_hex(r, 40)}",
        lambda r: f"commit {_hex(r, 8)} broke it",
        lambda r: f"sha256:{_hex(r, 64)}",
        lambda r: f"trace id {_hex(r, 32)}",
        lambda r: f'etag "{_hex(r, 32)}"',
    ],
    "tracking": [
        lambda r: f"tracking 1Z{digits(r, 3)}{''.join(r.choices(_UP, k=2))}{digits(r, 11)}",
        lambda r: f"parcel {digits(r, 12, '123456789')}",
        lambda r: f"tracking number {digits(r, 4)} {digits(r, 4)} {digits(r, 4)}",
        lambda r: f"{''.join(r.choices(_UP, k=2))}{digits(r, 9)}DE is on its way",
        lambda r: f"EAN {digits(r, 13, '23456789')}",
    ],
    "math": [
        lambda r: f"{digits(r, 4)} * {digits(r, 5)} = {digits(r, 9, '123456789')}",
        lambda r: f"pi is 3.14159265358979, e is 2.71828182845904, x = {r.random():.12f}",
        lambda r: f"f(x) = {r.randint(2, 99)}x^2 - {r.randint(100, 999)}x + {digits(r, 7, '123456789')}",
        lambda r: f"at 48.{digits(r, 6)}, 11.{digits(r, 6)}",
        lambda r: f"ratio {r.randint(1, 9)}:{r.randint(1, 9)}:{r.randint(1, 9)}, {r.randint(1, 99)}/100",
    ],
    "words": [
        lambda _: "I forgot my password: how can I reset it?",
        lambda _: "see std::vector and https://docs.example.com/help/returns-and-refunds-for-large-orders-in-2024",
        lambda r: f"the token limit is {r.randint(1000, 200000)} tokens per request",
        lambda _: "Path /usr/lib/python3/dist-packages/numpy/core is missing, @anna please look",
        lambda r: (
            f"Room {r.randint(100, 999)}, floor {r.randint(1, 40)}, seats {r.randint(1, 9)}A-{r.randint(10, 20)}F"
        ),
        lambda _: "clone git@github.com:example/shop.git first",
    ],
}
"""Developed against."""
NEGATIVES_SECOND: dict[str, list[Callable[[random.Random], str]]] = {
    "order": [
        lambda r: f"Bestellnummer {digits(r, 10, '123456789')}",
        lambda r: f"PO-{digits(r, 10)} and RMA{digits(r, 7)}",
        lambda r: f"case {digits(r, 8, '123456789')}, item {digits(r, 4)}-{digits(r, 4)}",
        lambda r: f"serial {''.join(r.choices(_UP + '0123456789', k=12))}",
    ],
    "version": [
        lambda r: f"Windows 10.0.{r.randint(10000, 26000)}.{r.randint(100, 999)}",
        lambda r: f"requires numpy>={r.randint(1, 2)}.{r.randint(0, 9)}.{r.randint(0, 9)}, ffmpeg release 6.1.1.2",
    ],
    "date": [
        lambda r: "{}-{:02d}-{:02d}T{}.{}Z".format(*_day(r), _clock(r), digits(r, 6)),
        lambda r: f"from {_date(r)} until {_date(r)}",
    ],
    "price": [
        lambda r: f"CHF {r.randint(1, 9)}'{digits(r, 3)}.{digits(r, 2)}",
        lambda r: f"revenue of {digits(r, 3, '123456789')},{digits(r, 3)},{digits(r, 3)} USD",
    ],
    "digest": [
        lambda r: f"md5 {_hex(r, 32)}",
        lambda r: f"session chatcmpl-{_hex(r, 32)}",
        lambda r: f"#{_hex(r, 6)} and 0x{_hex(r, 16)}",
    ],
    "tracking": [
        lambda r: f"USPS {digits(r, 4)} {digits(r, 4)} {digits(r, 4)} {digits(r, 4)} {digits(r, 4)} {digits(r, 2)}",
        lambda r: f"ISBN 978-{r.randint(0, 9)}-{digits(r, 2)}-{digits(r, 6)}-{r.randint(0, 9)}",
        lambda r: f"DHL {digits(r, 10, '123456789')}",
    ],
    "math": [
        lambda r: f"sum([{', '.join(digits(r, r.randint(2, 6), '123456789') for _ in range(5))}])",
        lambda r: f"{r.random():.16f} +/- 0.00{digits(r, 10)}",
    ],
    "words": [
        lambda _: "MAC aa:bb:cc:dd:ee:ff, model WH-1000XM4, socket AM5",
        lambda r: (
            f"https://example.com/watch?v={''.join(r.choices(_UP + 'abcdef0123456789', k=11))}&t={r.randint(1, 999)}"
        ),
        lambda _: "the secret is to wait; the key is patience and 2 hours of time",
    ],
}
"""Written before the detectors, looked at after their first run."""

_FRAMES = ["{}", "Hello, {}.", "What about {}?", "{} and nothing else", "I still wait: {}, thanks", "(see {})"]


_MORE_NEGATIVES = {
    "third": redaction_third.NEGATIVES,
    "fourth": redaction_fourth.NEGATIVES,
    "fifth": redaction_fifth.NEGATIVES,
    "sixth": redaction_sixth.NEGATIVES,
    "seventh": redaction_seventh.NEGATIVES,
}


def _negative(rng: random.Random, part: str) -> Sample:
    if part in _MORE_NEGATIVES:
        kind, make = part, rng.choice(_MORE_NEGATIVES[part])
    else:
        table = NEGATIVES if part == "first" else NEGATIVES_SECOND
        kind = rng.choice(sorted(table))
        make = rng.choice(table[kind])
    text = rng.choice(_OPEN) + rng.choice(_FRAMES).format(make(rng)) + rng.choice(_CLOSE)
    return Sample(text, format=kind, part=part)


def labelled(seed: int, per_entity: int) -> list[Sample]:
    """For each entity and part `per_entity` texts, and as many texts without any value."""
    rng = random.Random(seed)
    out = [_planted(rng, entity, part) for entity in ENTITIES for part in PARTS for _ in range(per_entity)]
    out += [_negative(rng, part) for part in PARTS for _ in range(per_entity * len(ENTITIES))]
    rng.shuffle(out)
    return out


# --- text to measure speed on --------------------------------------------------------------------

_TALK = [
    "Hi, I ordered a floor lamp last week and it has not arrived yet.", "Could you tell me when you open on Saturdays?",
    "The blue one is out of stock, isn't it?",
        "I would like to return the desk because one leg is shorter than the others.",
    "Thanks a lot for the quick answer, that solved it!", "Is the warranty also valid if I move to another country?",
    "My order 4471-22 shows as delivered, but nobody was at home.",
        "The voucher from 24.11.2025 does not work any more.",
    "It says error 502 since version 2.14.3, please check.", "I paid 129.90 EUR and got only two of three parcels.",
    "Können Sie mir sagen, ob die Lampe auch in Grün verfügbar ist?",
        "Die Lieferung sollte am 12.03. zwischen 10:00 und 14:00 Uhr kommen.",
    "¿Puedo cambiar la dirección de entrega después de la compra?",
        "Je n'ai toujours pas reçu ma commande, c'est très décevant.",
    "Please note that the assembly takes about 45 minutes and needs two people – the manual doesn’t say so.",
    "We have refunded the amount; it can take up to five working days until you see it on your statement.",
    "Of course! Go to Settings, then Orders, choose the order and press Return.", "No, that is not what I asked.",
]  # fmt: skip


def support_chat(seed: int, megabytes: float, share_with_pii: float) -> list[str]:
    """Messages of two to eight sentences; that share of them carries one planted value (any format)."""
    rng = random.Random(seed)
    out: list[str] = []
    size = 0.0
    while size < megabytes * 1e6:
        lines = rng.choices(_TALK, k=rng.randint(2, 8))
        if rng.random() < share_with_pii:
            lines.insert(rng.randrange(len(lines)), _planted(rng, rng.choice(ENTITIES), rng.choice(PARTS)).text)
        out.append(" ".join(lines))
        size += len(out[-1].encode())
    return out
