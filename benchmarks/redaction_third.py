"""A third lot of formats, sentences and look-alikes, written after the second and looked at after their first run."""

from __future__ import annotations

import random
from collections.abc import Callable

import redaction_ids as ids
import redaction_values as values
from redaction_values import digits

_R = random.Random


def _dial(*patterns: str) -> Callable[[_R], str]:
    return values._dial(*patterns)


FORMATS: dict[str, dict[str, Callable[[_R], str]]] = {
    "EMAIL": {
        "markdown": lambda r: f"[mail](mailto:\x02{values._mail('{a}.{b}@{h}')(r)}\x03)",
        "bold": lambda r: f"**\x02{values._mail('{a}_{b}@{h}')(r)}\x03**",
        "semicolon_list": lambda r: f"cc=\x02{values._mail('{b}{n}@{h}')(r)}\x03;",
        "full_width": lambda r: values._mail("{a}{n}@{h}")(r).translate({c: c + 0xFEE0 for c in range(33, 127)}),
        "soft_hyphen": lambda r: values._mail("{a}.\u00ad{b}@exam\u00adple.org")(r),
        "deep_domain": values._mail("{a}-{b}@it.support.{b}.example.com.au", ("x",)),
        "log": lambda r: f"user='\x02{values._mail('{A}{B}@{h}')(r)}\x03' action=login",
    },
    "PHONE": {
        "north": _dial("+45 ## ## ## ##", "+47 9## ## ###", "+46 70-### ## ##", "+358 40 ### ####"),
        "east": _dial("+48 5## ### ###", "+420 7## ### ###", "+380 67 ### ## ##", "+40 7## ### ###"),
        "asia": _dial("+65 9### ####", "+82 10-####-####", "+60 12-### ####", "+62 812-####-####"),
        "africa_latin": _dial("+27 82 ### ####", "+254 7## ######", "+52 55 #### ####", "+57 3## ### ####"),
        "glued": _dial("+4915########", "+3361#######", "+9198########", "+61412######"),
        "slashes": _dial("0221/N## ##-##", "0511 / N######"),
        "dots_fr": _dial("+33.6.##.##.##.##", "0033 6 ## ## ## ##"),
        "full_width": lambda r: _dial("+81 90-####-####")(r).translate({c: c + 0xFEE0 for c in range(48, 58)}),
    },
    "CARD": {
        "arabic_digits": lambda r: values._card(("4",), 16, 4, 4, 4, 4)(r).translate(
            {48 + i: 0x0660 + i for i in range(10)}
        ),
        "en_dash": values._card(("51", "54"), 16, 4, 4, 4, 4, by="\u2013"),
        "eight_eight": values._card(("4",), 16, 8, 8),
        "underscored_key": lambda r: f"card_no=\x02{values._card(('55',), 16)(r)}\x03&exp=0828",
        "json": lambda r: f'{{"pan": "\x02{values._card(("37",), 15)(r)}\x03"}}',
        "joiner": values._card(("2221", "2720"), 16, 4, 4, 4, 4, by="\u2060"),
        "after_number": lambda r: f"{r.randint(2, 9)}x \x02{values._card(('4',), 16, 4, 4, 4, 4)(r)}\x03",
    },
    "IBAN": {
        "thin_space": values._iban("\u2009"),
        "brackets": lambda r: f"[\x02{values._iban(' ')(r)}\x03]",
        "zero_width": values._iban("\u200b"),
        "mixed": lambda r: (v := values._iban()(r))[:2].lower() + v[2:],
        "comma": lambda r: f"\x02{values._iban()(r)}\x03,BIC",
    },
    "IP": {
        "url": lambda r: f"http://\x02{values._ip4(r)}\x03/admin",
        "parens": lambda r: f"(\x02{values._ip4(r)}\x03)",
        "v6_cidr": lambda r: f"\x02{values._ip6(2)(r)}\x03/64",
        "zone": lambda r: f"\x02fe80::{r.randint(1, 0xFFFF):x}:{r.randint(16, 0xFFFF):x}\x03%eth0",
        "full_width": lambda r: values._ip4(r).translate({c: c + 0xFEE0 for c in range(48, 58)}),
        "list": lambda r: f"localhost,\x02{values._ip4(r)}\x03",
    },
    "KEY": {
        "anthropic": values._secret("sk-ant-api03-", 80),
        "npm": values._secret("npm_", 36),
        "sendgrid": lambda r: f"SG.{values._chars(r, 22)}.{values._chars(r, 43)}",
        "slack_user": values._secret("xoxp-", 50, "0123456789abcdef-"),
        "github_fine": values._secret("github_pat_", 60),
        "yaml": lambda r: f"secret_key: '\x02{values._chars(r, 32)}\x03'",
        "french": lambda r: f"mon mot de passe est \x02{values._password(r)}\x03",
        "spanish": lambda r: f"contraseña: \x02{values._password(r)}\x03",
        "header": lambda r: f"-H 'X-Auth-Token: \x02{values._chars(r, 32, '0123456789abcdef')}\x03'",
        "zero_width": lambda r: ids.cut(values._secret("ghp_", 36)(r), 9, 9, 9, 9, by="\u200b"),
        "query": lambda r: f"https://api.example.com/v1?access_token=\x02{values._chars(r, 40)}\x03&page=2",
    },
    "CREDENTIALS": {
        "mysql": values._url("mysql+pymysql", "10.example.net/shop"),
        "smtp": values._url("smtps", "mail.example.org:465"),
        "proxy": lambda r: (
            f"HTTPS_PROXY=http://\x02{r.choice(['corp', 'dev'])}:{values._chars(r, 12)}\x03@proxy.example.com:3128"
        ),
        "quoted": lambda r: f'"dsn": "postgres://\x02app:{values._chars(r, 9)}$\x03@db/app"',
    },
    "NATIONAL_ID": {},
}
NATIONAL: dict[str, Callable[[_R], tuple[str, str]]] = {
    "us_en_dash": lambda r: ("Social Security number", ids.cut(ids.us(r), 3, 2, 4, by="\u2013")),
    "nino_pairs": lambda r: ("NINO", f"{(v := ids.nino(r))[:2]} {v[2:8]} {v[8]}"),
    "de_zero_width": lambda r: (
        "Steuernummer (IdNr.)",
        "\u200b".join(ids.cut(ids.steuer_id(r), 2, 3, 3, 3, by=" ").split()),
    ),
    "fr_key_apart": lambda r: ("n° de sécu", f"{(v := ids.nir(r))[:13]} {v[13:]}"),
    "nie_dash": lambda r: ("NIE", f"{(v := ids.nie(r))[0]}-{v[1:8]}-{v[8]}"),
    "it_full_width": lambda r: ("CF", ids.codice_fiscale(r).translate({c: c + 0xFEE0 for c in range(48, 91)})),
    "be_french": lambda r: ("numéro de registre national", ids.cut(ids.belgian(r), 6, 3, 2, by="-")),
    "pl_bare": lambda r: ("numer PESEL", ids.pesel(r)),
    "se_bare": lambda r: ("personal number", ids.swedish(r)),
    "fi_lower": lambda r: ("hetu", ids.finnish(r).lower()),
    "br_slash": lambda r: ("cadastro CPF", f"{(v := ids.cpf(r))[:9]}/{v[9:]}"),
    "in_dash": lambda r: ("Aadhaar card number", ids.cut(ids.aadhaar(r), 4, 4, 4, by="-")),
    "au_named": lambda r: ("tax file no.", ids.cut(ids.tfn(r), 3, 3, 3, by=" ")),
    "ch_spaces": lambda r: ("AHV", ids.cut(ids.ahv(r), 3, 4, 4, 2, by=" ")),
    "tr_words": lambda r: ("T.C. Kimlik Numarası", ids.turkish(r)),
    "ca_bare": lambda r: ("SIN", ids.sin(r)),
    "dk_bare": lambda r: ("CPR", ids.danish(r)),
    "nl_word": lambda r: ("BSN-nummer", ids.bsn(r)),
}
AROUND = {
    "EMAIL": ["pls update my login: {} 🙏", "Account of {}\nPlan: pro", "envoyez à {} svp", "{} is the one"],
    "PHONE": ["my new number: {}", "ring {} (evenings)", "Kontakt: {}", "{} - call anytime", "Teléfono {} o correo"],
    "CARD": ["I see a charge on {} that I don't know", "Visa {}", "cancel {} now!!", "n° {}"],
    "IBAN": ["wire it to {} please 🙏", "Kontonummer: {}", "compte {}"],
    "IP": ["blocked: {}", "traceroute to {} stops", "mein Server {} ist weg"],
    "KEY": ["is this ok? {}", "config:\n{}\nend", "`{}`"],
    "CREDENTIALS": ["{} times out", "see `{}`", "DSN {}"],
    "NATIONAL_ID": ["{name} {}", "Sure – my {name} is {}!", "{name} = {}", "für das Formular: {name} {}"],
}
_UP = "ABCDEFGHJKLMNPRSTUVWXYZ"
NEGATIVES: list[Callable[[_R], str]] = [
    lambda r: f"my order id is {digits(r, 9, '123456789')}",
    lambda r: f"Bestellung Nr. {digits(r, 4)}-{digits(r, 4)}-{digits(r, 3)}",
    lambda r: f"commande n° {digits(r, 11, '123456789')}",
    lambda r: f"reservation {''.join(r.choices(_UP + '23456789', k=6))} on {r.randint(1, 28)}/{r.randint(1, 12)}/2026",
    lambda r: f"python 3.{r.randint(8, 14)}.{r.randint(0, 9)} and CUDA 12.{r.randint(0, 9)}.{r.randint(0, 99)}",
    lambda r: f"openssl 3.0.{r.randint(0, 20)}, build {digits(r, 8, '123456789')}",
    lambda r: f"it was {r.randint(1, 28):02d}.{r.randint(1, 12):02d}.2025 {r.randint(10, 23)}:{r.randint(10, 59)}",
    lambda r: (
        f"from 2026-0{r.randint(1, 9)}-{r.randint(10, 28)} to 2026-1{r.randint(0, 2)}-{r.randint(10, 28)}, 3 nights"
    ),
    lambda r: (
        f"{digits(r, 2, '123456789')} {digits(r, 3)},{digits(r, 2)} zł and £{digits(r, 4, '123456789')}.{digits(r, 2)}"
    ),
    lambda r: f"JIRA-{digits(r, 4)}, PR #{digits(r, 5)}, sprint {r.randint(1, 99)}",
    lambda r: f"docker pull shop/app@sha256:{values._chars(r, 64, '0123456789abcdef')}",
    lambda r: f"git checkout {values._chars(r, 40, '0123456789abcdef')}",
    lambda r: f"span {values._chars(r, 16, '0123456789abcdef')} parent {values._chars(r, 16, '0123456789abcdef')}",
    lambda r: f"UPS 1Z {digits(r, 3)} {''.join(r.choices(_UP, k=3))} {digits(r, 2)} {digits(r, 4)} {digits(r, 4)}",
    lambda r: f"GTIN {digits(r, 14, '123456789')}, lot {digits(r, 6)}",
    lambda r: f"2^{r.randint(10, 64)} = {r.randint(2**40, 2**50)}",
    lambda r: f"{r.randint(100, 999)}/{r.randint(10, 99)} = {r.random() * 10:.10f}",
    lambda r: f"lat -{r.randint(1, 60)}.{digits(r, 7)} lon 1{r.randint(10, 79)}.{digits(r, 7)}",
    lambda r: f"the token count was {digits(r, 6, '123456789')} of 200000",
    lambda r: f"screen 1920x1080, dpi {r.randint(90, 300)}, hex #{values._chars(r, 6, '0123456789abcdef')}",
    lambda _: "npm ERR! peer react@18.2.0 from @testing-library/react@14.0.0",
    lambda _: "Ask @ben at the desk; the dot on the lamp blinks at night",
    lambda r: f"Article {digits(r, 3)}.{digits(r, 3)}.{digits(r, 2)} is 45-60 cm, 10-15 kg",
    lambda r: (
        f"seats {r.randint(1, 30)}A, {r.randint(1, 30)}B; flight LH {r.randint(100, 999)} at {r.randint(10, 23)}:30"
    ),
]
