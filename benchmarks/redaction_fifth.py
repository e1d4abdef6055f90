"""A fifth lot of formats, sentences and look-alikes, written after the fourth and looked at after its first run."""

from __future__ import annotations

import random
from collections.abc import Callable

import redaction_ids as ids
import redaction_values as values
from redaction_values import digits

_R = random.Random

FORMATS: dict[str, dict[str, Callable[[_R], str]]] = {
    "EMAIL": {
        "slash": lambda r: f"mail/\x02{values._mail('{b}.{a}@{h}')(r)}\x03",
        "equals": lambda r: f"?email=\x02{values._mail('{a}{n}@{h}')(r)}\x03&x=1",
        "question": lambda r: f"\x02{values._mail('{A}{n}@{h}')(r)}\x03?",
        "hyphens": values._mail("{a}-{b}-{n}@{b}-{a}.example.org", ("x",)),
        "left_to_right_mark": lambda r: "\u200e" + values._mail("{a}.{b}@{h}")(r) + "\u200e",
    },
    "PHONE": {
        "hungary_greece": values._dial("+36 30 ### ####", "+30 69# ### ####", "06 30 ### ####"),
        "japan_landline": values._dial("03-3###-####", "+81-3-####-####"),
        "argentina_chile": values._dial("+54 9 11 ####-####", "+56 9 #### ####"),
        "nigeria_egypt": values._dial("+234 80# ### ####", "+20 10 #### ####", "0803 ### ####"),
        "non_breaking": lambda r: values._dial("+44\u00a020\u00a07###\u00a0####", "030\u00a0N######")(r),
        "mobile_de": values._dial("(0171) N######", "0171 / N### ###", "01## / N#######"),
    },
    "CARD": {
        "quoted": lambda r: f"'\x02{values._card(('4',), 16)(r)}\x03'",
        "tabs": values._card(("51",), 16, 4, 4, 4, 4, by="\t"),
        "arabic_bare": lambda r: values._card(("4",), 16)(r).translate({48 + i: 0x06F0 + i for i in range(10)}),
        "rupay": values._card(("6521", "6522"), 16, 4, 4, 4, 4),
        "colon": lambda r: f"Nr:\x02{values._card(('5105',), 16, 4, 4, 4, 4)(r)}\x03",
    },
    "IBAN": {
        "sentence": lambda r: f"Meine IBAN lautet \x02{values._iban(' ')(r)}\x03",
        "hash": lambda r: f"#\x02{values._iban()(r)}\x03",
        "full_width": lambda r: values._iban()(r).translate({c: c + 0xFEE0 for c in range(48, 91)}),
    },
    "IP": {
        "at": lambda r: f"root login@\x02{values._ip4(r)}\x03",
        "arrow": lambda r: f"\x02{values._ip4(r)}\x03->server",
        "v6_loop": lambda r: f"\x022a00:1450:4001:{r.randint(0x100, 0xFFF):x}::{r.randint(0x2000, 0x2FFF):x}\x03",
    },
    "KEY": {
        "groq": values._secret("gsk_", 52),
        "stripe_hook": values._secret("whsec_", 32),
        "italian": lambda r: f"la password è \x02{values._password(r)}\x03",
        "polish_env": lambda r: f"API_KEY='\x02{values._chars(r, 20)}\x03'",
        "pwd": lambda r: f"pwd: \x02{values._password(r)}\x03",
        "camel": lambda r: f"clientSecret: \x02{values._chars(r, 30)}\x03",
    },
    "CREDENTIALS": {
        "sftp": values._url("sftp", "files.example.net:2222/in"),
        "amqp": values._url("amqps", "mq.example.net/%2f"),
    },
    "NATIONAL_ID": {},
}
NATIONAL: dict[str, Callable[[_R], tuple[str, str]]] = {
    "us": lambda r: ("social security", ids.cut(ids.us(r), 3, 2, 4, by="-")),
    "nino_dash": lambda r: ("NI number", ids.cut(ids.nino(r), 2, 2, 2, 2, by="-")),
    "nhs": lambda r: ("NHS-number", ids.cut(ids.nhs(r), 3, 3, 4, by=" ")),
    "de": lambda r: ("IdNr.", ids.steuer_id(r)),
    "fr": lambda r: ("n° INSEE", ids.nir(r)),
    "es": lambda r: ("NIF español", ids.dni(r)),
    "it": lambda r: ("c.f.", ids.codice_fiscale(r)),
    "nl_dash": lambda r: ("BSN", ids.cut(ids.bsn(r), 3, 3, 3, by="-")),
    "be": lambda r: ("NN", ids.belgian(r)),
    "pl": lambda r: ("pesel", ids.pesel(r)),
    "se": lambda r: ("persnr", ids.cut(ids.swedish(r), 6, 4, by="-")),
    "no": lambda r: ("fnr", ids.norwegian(r)),
    "br": lambda r: ("cpf", f"{(v := ids.cpf(r))[:9]}-{v[9:]}"),
    "in": lambda r: ("Aadhaar", ids.cut(ids.aadhaar(r), 4, 4, 4, by=" ")),
    "ch": lambda r: ("numero AVS", ids.cut(ids.ahv(r), 3, 4, 4, 2, by=".")),
    "tr": lambda r: ("kimlik numaram", ids.turkish(r)),
    "pt": lambda r: ("nif", ids.nif(r)),
}
AROUND = {
    "EMAIL": ["please use {} instead", "bei {} kam nichts an", "{}"],
    "PHONE": ["{} is best", "under {} please", "Rückruf unter {}"],
    "CARD": ["the number {} does not work", "with {} I paid", "{}"],
    "IBAN": ["{}", "overschrijven naar {} aub", "pay {} back"],
    "IP": ["server {} down", "{}", "why is {} banned"],
    "KEY": ["{}", "fyi {} ok", "I pasted {} by mistake"],
    "CREDENTIALS": ["{}", "fetch {} fails"],
    "NATIONAL_ID": ["{name} {}", "{name}: {}", "my {name} = {}, right?"],
}
NEGATIVES: list[Callable[[_R], str]] = [
    lambda r: f"claim {digits(r, 8, '123456789')}",
    lambda r: f"Auftrag {digits(r, 3)}.{digits(r, 4)}.{digits(r, 3)}",
    lambda r: f"meter reads {digits(r, 7, '123456789')} after {digits(r, 3)} days",
    lambda r: f"in {r.randint(1990, 2026)}/{r.randint(10, 99)} and {r.randint(1990, 2026)}-{r.randint(1990, 2026)}",
    lambda r: f"opening hours 09:00-1{r.randint(0, 9)}:30, closed 24.-26.12.",
    lambda r: f"shelf {digits(r, 2)}-{digits(r, 2)}-{digits(r, 3)}, bin {digits(r, 4)}",
    lambda r: f"kernel 6.{r.randint(1, 12)}.{r.randint(0, 99)}-{r.randint(10, 99)}-generic",
    lambda r: f"pip install torch=={r.randint(1, 2)}.{r.randint(0, 9)}.{r.randint(0, 9)}+cu12{r.randint(1, 9)}",
    lambda r: f"batch {digits(r, 10, '123456789')}, exp {r.randint(1, 12):02d}/2{r.randint(6, 9)}",
    lambda r: f"{digits(r, 3, '123456789')}.{digits(r, 3)} km, {digits(r, 2)}.{digits(r, 3)} EUR, {digits(r, 5)} m²",
    lambda r: f"tree {values._chars(r, 40, '0123456789abcdef')} parent {values._chars(r, 7, '0123456789abcdef')}",
    lambda r: f"uuid {values._chars(r, 8, 'abcdef0123456789')}-1234-4abc-9def-{digits(r, 12)}",
    lambda r: f"tracking JD{digits(r, 18)}",
    lambda r: f"x = [{r.random():.8f}, {r.random():.8f}], n = {digits(r, 8, '123456789')}",
    lambda _: "my email is broken, my phone rings, the card reader and the password box freeze",
    lambda r: (
        f"Gate B{digits(r, 2)}, PNR {''.join(r.choices('ABCDEFGH23456789', k=6))}, bag {digits(r, 10, '123456789')}"
    ),
]
