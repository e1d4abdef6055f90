"""A fourth lot of formats, sentences and look-alikes, written after the third and looked at after their first run."""

from __future__ import annotations

import random
from collections.abc import Callable

import redaction_ids as ids
import redaction_values as values
from redaction_values import digits

_R = random.Random
_UP = "ABCDEFGHJKLMNPRSTUVWXYZ"


def _bold(text: str) -> str:
    """Mathematical bold digits and letters."""
    out = ""
    for c in text:
        base = (
            0x1D7CE - 48 if c.isdigit() else 0x1D400 - 65 if "A" <= c <= "Z" else 0x1D41A - 97 if "a" <= c <= "z" else 0
        )
        out += chr(ord(c) + base)
    return out


FORMATS: dict[str, dict[str, Callable[[_R], str]]] = {
    "EMAIL": {
        "signature": lambda r: f"--\nMira\n\x02{values._mail('{a}@{b}.io', ('x',))(r)}\x03",
        "two": lambda r: f"\x02{values._mail('{a}.{b}@{h}')(r)}\x03/office",
        "curly": values._mail("{a}{{at}}{b}.example.org", ("x",)),
        "bold": lambda r: "".join(c if c in "@." else _bold(c) for c in values._mail("{a}@{b}.net", ("x",))(r)),
        "digits": values._mail("{n}{n}@{h}"),
        "quoted_reply": lambda r: f"> From: \x02{values._mail('{a}-{b}@{h}')(r)}\x03\n> hi",
    },
    "PHONE": {
        "brackets_plus": values._dial("+(49) 171 N######", "+49-(0)30-N######"),
        "israel_turkey": values._dial("+972 5#-###-####", "+90 5## ### ## ##", "0532 ### ## ##"),
        "ireland_malta": values._dial("+353 87 ### ####", "+356 79## ####", "087 ### ####"),
        "us_ext": values._dial("N##-N##-#### x##", "(N##)N##-####", "+1.N##.N##.####"),
        "slash_plus": values._dial("+49/171/N######", "0171-N######"),
        "bold": lambda r: _bold(values._dial("0176 N#######")(r)),
        "labelled": lambda r: f"Tel: \x02{values._dial('N### ####')(r)}\x03",
    },
    "CARD": {
        "bold": lambda r: _bold(values._card(("4",), 16, 4, 4, 4, 4)(r)),
        "double_space": values._card(("52",), 16, 4, 4, 4, 4, by="  "),
        "mixed_gap": lambda r: (v := values._card(("4",), 16)(r))[:4] + "-" + v[4:8] + " " + v[8:12] + "-" + v[12:],
        "maestro_19": values._card(("6759",), 19, 4, 4, 4, 4),
        "hash": lambda r: f"card#\x02{values._card(('4',), 16)(r)}\x03",
        "csv": lambda r: f"mira,\x02{values._card(('6011',), 16)(r)}\x03,2028",
    },
    "IBAN": {
        "lead": lambda r: f"Konto/IBAN=\x02{values._iban()(r)}\x03;",
        "double_space": lambda r: f"\x02{values._iban(' ', countries=('NL', 'BE', 'AT'))(r)}\x03 (shared)",
        "bold": lambda r: _bold(values._iban(countries=("DE", "FR"))(r)),
        "after_words": lambda r: f"account no \x02{values._iban(' ', countries=('GB', 'IE', 'PL'))(r)}\x03",
    },
    "IP": {
        "equals": lambda r: f"x-forwarded-for={values._ip4(r)}".replace("=", "=\x02") + "\x03",
        "range": lambda r: f"\x02{values._ip4(r)}\x03-255",
        "v6_full": lambda r: ":".join(f"{r.randint(0, 0xFFFF):04x}" for _ in range(8)),
        "quotes": lambda r: f'"ip":"\x02{values._ip4(r)}\x03"',
        "slash": lambda r: f"//\x02{values._ip4(r)}\x03:8080/x",
    },
    "KEY": {
        "mailgun": lambda r: f"token = \x02key-{values._chars(r, 32, '0123456789abcdef')}\x03",
        "telegram": lambda r: f"{digits(r, 9, '123456789')}:AA{values._chars(r, 33)}",
        "aws_secret": lambda r: f"aws_secret_access_key = \x02{values._chars(r, 40)}\x03",
        "pypi": values._secret("pypi-AgEIcHlwaS5vcmc", 60),
        "dutch": lambda r: f"mijn wachtwoord is \x02{values._password(r)}\x03",
        "chat": lambda r: f"the password is \x02{values._password(r)}\x03 btw",
        "basic": lambda r: f"Authorization: Basic \x02{values._chars(r, 28)}\x03",
        "openssh": lambda r: (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n" + values._chars(r, 64) + "\n-----END OPENSSH PRIVATE KEY-----"
        ),
    },
    "CREDENTIALS": {
        "imap": values._url("imaps", "imap.example.org"),
        "ip": lambda r: f"http://\x02root:{values._chars(r, 8)}\x03@intern.example.org:8080",
        "paren": lambda r: f"(see ldap://\x02svc:{values._chars(r, 14)}\x03@ldap.example.org)",
    },
    "NATIONAL_ID": {},
}
NATIONAL: dict[str, Callable[[_R], tuple[str, str]]] = {
    "us_dots": lambda r: ("SSN", ids.cut(ids.us(r), 3, 2, 4, by=".")),
    "us_bold": lambda r: ("SSN", _bold(ids.cut(ids.us(r), 3, 2, 4, by="-"))),
    "nhs_dash": lambda r: ("NHS number", ids.cut(ids.nhs(r), 3, 3, 4, by="-")),
    "de_ger": lambda r: ("steuerliche Identifikationsnummer", ids.cut(ids.steuer_id(r), 2, 3, 3, 3, by=" ")),
    "fr_dots": lambda r: ("sécurité sociale", ids.cut(ids.nir(r), 1, 2, 2, 2, 3, 3, 2, by=".")),
    "es_space": lambda r: ("DNI", f"{(v := ids.dni(r))[:8]} {v[8]}"),
    "it_spaces": lambda r: ("codice fiscale", ids.cut(ids.codice_fiscale(r), 3, 3, 5, 5, by=" ")),
    "pl_no_name": lambda r: ("personal code", ids.pesel(r)),
    "se_plus": lambda r: ("personnummer", ids.cut(ids.swedish(r), 6, 4, by="+")),
    "pt_long": lambda r: ("NIF (contribuinte)", ids.nif(r)),
    "br_plain": lambda r: ("meu CPF", f"{(v := ids.cpf(r))[:3]} {v[3:6]} {v[6:9]} {v[9:]}"),
    "in_aadhar": lambda r: ("aadhar no", ids.aadhaar(r)),
    "no_dots": lambda r: ("fødselsnr.", ids.cut(ids.norwegian(r), 6, 5, by=" ")),
    "nl_dutch": lambda r: ("burgerservicenummer (BSN)", ids.bsn(r)),
    "ch_german": lambda r: ("AHV-Nr.", ids.cut(ids.ahv(r), 3, 4, 4, 2, by=".")),
    "ca_french": lambda r: ("numéro d'assurance sociale", ids.cut(ids.sin(r), 3, 3, 3, by=" ")),
    "uk_prefix": lambda r: ("NI no", ids.cut(ids.nino(r), 2, 6, by=" ")),
    "fi_plain": lambda r: ("Finnish id code", ids.finnish(r)),
}
AROUND = {
    "EMAIL": ["login {} since May", "cc {} too", "*{}*", "Wer ist {}?"],
    "PHONE": ["try {} instead", "Call {} or write", "{}", "Handy: {}, abends"],
    "CARD": ["paid w/ {}", "{} was declined", "mastercard {} please", "Karte {}"],
    "IBAN": ["{} is where the money goes", "konto {}", "to: {}"],
    "IP": ["from {} again", "{}", "whitelist {} pls"],
    "KEY": ["{}", "oops, {}", "log says {} hm"],
    "CREDENTIALS": ["{} refused", "try {}"],
    "NATIONAL_ID": ["{name}: {} (please keep safe)", "Hier: {name} {}", "it's {}, my {name}", "my {name} is: {}"],
}
NEGATIVES: list[Callable[[_R], str]] = [
    lambda r: f"Referenz {digits(r, 10, '123456789')}",
    lambda r: f"numero d'ordine {digits(r, 9, '123456789')}",
    lambda r: f"policy {digits(r, 3)}-{digits(r, 6)}-{digits(r, 2)}",
    lambda r: f"Zählerstand {digits(r, 6)},{digits(r, 1)} kWh",
    lambda r: f"IMEI 35{digits(r, 13)}",
    lambda r: f"barcode {digits(r, 8, '123456789')}",
    lambda r: f"p. {r.randint(1, 99)}-{r.randint(100, 199)}, doi 10.{digits(r, 4, '1')}/{digits(r, 7)}",
    lambda r: f"arXiv 2{digits(r, 3)}.{digits(r, 5)}",
    lambda r: f"temperature {r.randint(10, 35)}.{digits(r, 2)}, humidity {digits(r, 2)}.{digits(r, 3)}",
    lambda r: f"kubectl 1.{r.randint(20, 35)}.{r.randint(0, 20)}+k3s1, ubuntu 24.04.{r.randint(1, 4)}",
    lambda r: f"blob {values._chars(r, 12, '0123456789abcdef')} in refs/heads/main",
    lambda r: f"id=01J{''.join(r.choices('0123456789ABCDEFGHJKMNPQRSTVWXYZ', k=23))}",
    lambda r: (
        f"https://shop.example.com/p/{digits(r, 8, '123456789')}?ref=mail&utm_campaign=spring_{r.randint(2020, 2026)}"
    ),
    lambda r: (
        f"{r.randint(1, 12)}/{r.randint(10, 28)}/{r.randint(2019, 2026)}, {r.randint(1, 12)}:{r.randint(10, 59)} pm"
    ),
    lambda r: f"Rs. {r.randint(1, 9)},{digits(r, 2)},{digits(r, 3)}.{digits(r, 2)}",
    lambda r: (
        f"score {r.randint(1, 9)}-{r.randint(1, 9)}, {r.randint(60, 99)}-{r.randint(60, 99)}, {digits(r, 5)} people"
    ),
    lambda r: f"serial no. {''.join(r.choices(_UP, k=2))}{digits(r, 4)}-{digits(r, 4)}",
    lambda r: f"{digits(r, 3, '123456789')} x {digits(r, 3, '123456789')} x {digits(r, 4, '123456789')} mm",
    lambda r: f"model {''.join(r.choices(_UP, k=3))}-{digits(r, 4)}{r.choice(_UP)}, lot {digits(r, 7)}",
    lambda _: "use foo::bar<T>, not a@b; meet at noon (at the desk)",
    lambda r: f"C0{digits(r, 2)}: E = 6.62607015e-34, c = 299792458 m/s",
    lambda r: f"[{', '.join(digits(r, 3, '123456789') for _ in range(6))}]",
]
