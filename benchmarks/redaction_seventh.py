"""The held-out lot: formats, sentences and look-alikes that no detector was ever changed for.

Whoever changes a detector because of a text in here lets the lot be one of the developed ones and writes another.
National numbers are of the issuers of the earlier lots.
"""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

import redaction_ids as ids
import redaction_values as values
from redaction_values import digits

_R = random.Random
_HEX = "0123456789abcdef"
_UPPER = string.ascii_uppercase + string.digits


def _pass(rng: _R) -> str:
    """A password: two words and a number, a phrase with signs, or what a manager makes."""
    word = rng.choice(("Tulip", "Anchor", "Bicycle", "Pepper", "Sunset", "Granite"))
    other = rng.choice(("rain", "moon", "desk", "fox", "tea"))
    return rng.choice(
        (
            f"{word}{other.title()}{digits(rng, 2)}",
            f"{word}.{other}.{digits(rng, 3)}",
            f"{word}_{digits(rng, 4)}!",
            f"{digits(rng, 2)}{word}&{other}"[: rng.randint(10, 14)].replace("&", "+"),
            values._chars(rng, rng.randint(12, 20)),
        )
    )


def _said(before: str, after: str = "", make: Callable[[_R], str] = _pass) -> Callable[[_R], str]:
    return lambda r: f"{before}\x02{make(r)}\x03{after}"


def _hex(n: int) -> Callable[[_R], str]:
    return lambda r: values._chars(r, n, _HEX)


def _any(n: int) -> Callable[[_R], str]:
    return lambda r: values._chars(r, n)


def _national_iban(country: str, *cut: int) -> Callable[[_R], str]:
    """In the groups of the country's own bank codes and account numbers."""
    return lambda r: values._cut(values._iban(countries=(country,))(r), *cut)


def _url(before: str, after: str, sign: str = "") -> Callable[[_R], str]:
    def make(rng: _R) -> str:
        user = rng.choice((*values._FIRST, "admin", "readonly", "ci.bot", "u_4711"))
        return f"{before}\x02{user}:{values._chars(rng, rng.randint(7, 22))}{sign}\x03{after}"

    return make


FORMATS: dict[str, dict[str, Callable[[_R], str]]] = {
    "EMAIL": {
        "spaced": values._mail("{a}.{b} @ {h}"),
        "bracketed_sign": values._mail("{a}{n}[@]{h}"),
        "bracketed_dot": values._mail("{a}.{b}@{b}[.]com", ("x",)),
        "capital_words": values._mail("{a}{n} AT {b} DOT org", ("x",)),
        "round_words": values._mail("{a}_{b}(at){b}(dot)net", ("x",)),
        "link": lambda r: f'<a href="mailto:\x02{values._mail("{a}.{b}@{h}")(r)}\x03">write</a>',
        "recipient": lambda r: f"RCPT TO:<\x02{values._mail('{b}{n}@{h}')(r)}\x03>",
        "chinese": lambda r: f"邮箱\x02{values._mail('{a}{n}@{h}')(r)}\x03谢谢",
        "emoji": lambda r: f"📧\x02{values._mail('{a}-{b}@{h}')(r)}\x03✅",
        "tag_and_equals": values._mail("{a}+shop={n}@{h}"),
        "author": lambda r: f"Author: Mira R <\x02{values._mail('{n}+{a}@users.example.com', ('x',))(r)}\x03>",
        "json_list": lambda r: f'["\x02{values._mail("{a}.{b}@{h}")(r)}\x03"]',
        "slash": lambda r: f"login/\x02{values._mail('{A}{n}@{h}')(r)}\x03/orders",
    },
    "PHONE": {
        "card": lambda r: f"TEL;TYPE=CELL:\x02{values._dial('+49171N######', '+316########')(r)}\x03",
        "sign": lambda r: f"☎ \x02{values._dial('030 N### ###', '+43 1 N######', '044 ### ## ##')(r)}\x03",
        "letter": lambda r: f"M: \x02{values._dial('+44 7### ### ###', '(0)171 N######', '0171 - N######')(r)}\x03",
        "json": lambda r: f'{{"phone_number": "\x02{values._dial("+1N##N######", "+33612######")(r)}\x03"}}',
        "east_asia": values._dial("010-####-####", "09##-###-###", "+852 N### ####", "+886 9## ### ###"),
        "south_east": values._dial("08##-####-####", "08#-###-####", "09## ### ###", "+62-8##-####-####"),
        "africa": values._dial("07## ######", "08# ### ####", "+234-80#-###-####", "+256 7## ######"),
        "latin": values._dial("55 #### ####", "011 15-####-####", "3## ### ## ##", "+54 11 ####-####"),
        "middle_east": values._dial("05#-#######", "050 ### ####", "+98 912 ### ####", "+961 3 ### ###"),
        "hungary_greece": values._dial("06-30-###-####", "69########", "210 ### ####", "+36-1-###-####"),
        "france": values._dial("+33(0)6.##.##.##.##", "06/##/##/##/##", "+33 (0)1 ## ## ## ##"),
        "mixed": values._dial("+49.171.N######", "0171/N###-###", "+41 (0)44 ### ## ##"),
        "far": values._dial("+996 555 ######", "+995 5## ## ## ##", "+373 6# ### ###", "+976 99## ####"),
    },
    "CARD": {
        "halves": lambda r: f"{(v := values._card(('4',), 16)(r))[:4]} {v[4:8]} {v[8:]}",
        "lines": lambda r: f"{(v := values._card(('4', '52'), 16)(r))[:4]} {v[4:8]}\n{v[8:12]} {v[12:]}",
        "bars": values._card(("4", "55"), 16, 4, 4, 4, 4, by=" | "),
        "commas": values._card(("4",), 16, 4, 4, 4, 4, by=","),
        "all_of_it": lambda r: (
            f"\x02{values._card(('4', '54'), 16, 4, 4, 4, 4)(r)}\x03 {r.randint(1, 12):02d} 28 {digits(r, 3)}"
        ),
        "expiry": lambda r: f"\x02{values._card(('4', '51'), 16, 4, 4, 4, 4)(r)}\x03 {r.randint(1, 12):02d}/2029",
        "number": lambda r: f'{{"number":\x02{values._card(("4", "2720"), 16)(r)}\x03,"cvc":{digits(r, 3, "123")}}}',
        "attribute": lambda r: f"<card pan='\x02{values._card(('53', '6011'), 16)(r)}\x03'/>",
        "ideographic": values._card(("4",), 16, 4, 4, 4, 4, by="\u3000"),
        "thai_digits": lambda r: values._card(("4",), 16)(r).translate({c: c + 0x0E20 for c in range(48, 58)}),
        "jcb": values._card(("3530", "3566"), 16, 4, 4, 4, 4, by="-"),
        "diners": values._card(("300", "305", "36"), 14, 4, 6, 4, by="-"),
        "union": values._card(("6221", "6250"), 16),
        "amex_all": lambda r: f"Amex \x02{values._card(('37', '34'), 15, 4, 6, 5)(r)}\x03, {digits(r, 4)}",
    },
    "IBAN": {
        "france": _national_iban("FR", 4, 5, 5, 11, 2),
        "britain": _national_iban("GB", 8, 6, 8),
        "holland": _national_iban("NL", 4, 4, 10),
        "italy": _national_iban("IT", 4, 1, 5, 5, 12),
        "belgium": _national_iban("BE", 4, 3, 7, 2),
        "spain": _national_iban("ES", 4, 4, 4, 2, 10),
        "poland": _national_iban("PL", 4, 8, 16),
        "lines": lambda r: f"{(v := values._iban(' ')(r))[:14]}\n{v[15:]}",
        "with_bic": lambda r: f"IBAN:\x02{values._iban()(r)}\x03 BIC:DEUTDEFFXXX",
        "quoted": lambda r: f"'iban': '\x02{values._iban(' ')(r)}\x03'",
        "lower_dash": lambda r: values._iban("-")(r).lower(),
        "star": lambda r: f"*\x02{values._iban(' ')(r)}\x03*",
        "arrow": lambda r: f"->\x02{values._iban()(r)}\x03",
    },
    "IP": {
        "windows": lambda r: f"IPv4 Address. . . . . . . . . . . : \x02{values._ip4(r)}\x03(Preferred)",
        "reply": lambda r: f"Reply from \x02{values._ip4(r)}\x03: bytes=32 time=14ms TTL=117",
        "interface": lambda r: f"inet6 \x02{values._ip6(4)(r)}\x03/64 scope global dynamic",
        "nginx": lambda r: f"client: \x02{values._ip4(r)}\x03, server: _, request: GET / HTTP/2.0",
        "ban": lambda r: f"fail2ban.actions [812]: NOTICE [sshd] Ban \x02{values._ip4(r)}\x03",
        "variable": lambda r: f"REMOTE_ADDR=\x02{values._ip4(r)}\x03",
        "wireguard": lambda r: f"Endpoint = \x02{values._ip4(r)}\x03:51820",
        "zone": lambda r: f"shop.example.com. 300 IN A \x02{values._ip4(r)}\x03",
        "zone_v6": lambda r: f"shop.example.com. 300 IN AAAA \x02{values._ip6(2)(r)}\x03",
        "glued": lambda r: f"IP:\x02{values._ip4(r)}\x03",
        "bars": lambda r: f"|\x02{values._ip4(r)}\x03|",
        "place": lambda r: f"\x02{values._ip4(r)}\x03 (Berlin)",
        "v6_port": lambda r: f"[\x02{values._ip6(6, upper=True)(r)}\x03]:8443",
        "prefix": lambda r: f"2a0{r.randint(1, 9)}:{digits(r, 4, '1234')}:{r.randint(10, 99)}f::{digits(r, 2, '123')}",
    },
    "KEY": {
        "arabic": _said("كلمة المرور: "),
        "hebrew": _said("הסיסמה שלי: "),
        "greek": _said("ο κωδικός μου είναι "),
        "romanian": _said("parola mea este "),
        "croatian": _said("moja lozinka je "),
        "hungarian": _said("a jelszavam: "),
        "vietnamese": _said("mật khẩu của tôi là "),
        "indonesian": _said("kata sandi saya: "),
        "lithuanian": _said("mano slaptažodis yra "),
        "korean": _said("비밀번호: "),
        "ukrainian": _said("пароль від пошти "),
        "norwegian": _said("passordet mitt er "),
        "as_the": _said("I log in as mira with ", " as the password"),
        "netrc": _said("machine api.example.com login mira password "),
        "npmrc": _said("//registry.example.org/:_authToken=", make=_any(36)),
        "powershell": _said("Connect-Server -User mira -Password '", "'"),
        "escaped": _said('"{\\"password\\":\\"', '\\"}"'),
        "terraform": _said('db_password = "', '"'),
        "kube": _said(
            "kind: Secret\ndata:\n  password: ", "\n", lambda r: base64.b64encode(_pass(r).encode() + b"123").decode()
        ),
        "meeting": _said("Meeting passcode: ", make=lambda r: f"{digits(r, 6)}"),
        "key_query": _said("https://maps.example.com/js?key=", "&v=3", _any(39)),
        "functions_key": _said("x-functions-key: ", make=_any(44)),
        "datadog": _said("DD_API_KEY=", make=_hex(32)),
        "licence": _said("license key: ", make=lambda r: "-".join(values._chars(r, 5, _UPPER) for _ in range(4))),
        "stripe_env": _said("STRIPE_KEY=", make=lambda r: f"sk_live_{values._chars(r, 24)}"),
        "openrouter": lambda r: f"sk-or-v1-{values._chars(r, 64, _HEX)}",
        "slack_hook": _said("https://hooks.slack.com/services/", make=lambda r: (
            f"T{values._chars(r, 8, _UPPER)}/B{values._chars(r, 10, _UPPER)}/{values._chars(r, 24)}")),
        "discord": lambda r: (
            f"M{values._chars(r, 23)}.{values._chars(r, 6)}.{values._chars(r, 38)}"
        ),
        "service_account": _said('"private_key": "', '"', lambda r: (
            f"-----BEGIN PRIVATE KEY-----\\n{base64.b64encode(r.randbytes(60)).decode()}\\n"
            "-----END PRIVATE KEY-----\\n")),
        "mapbox": lambda r: f"sk.eyJ1{values._chars(r, 60)}.{values._chars(r, 22)}",
    },
    "CREDENTIALS": {
        "asyncpg": _url("postgresql+asyncpg://", "@pg.example.net/app"),
        "socks": _url("socks5://", "@proxy.example.org:1080"),
        "replicas": _url("mongodb://", "@a.example.net:27017,b.example.net:27017/shop?replicaSet=rs0"),
        "sign_inside": _url("https://", "@wiki.example.com/start", sign="$x!"),
        "colon_inside": _url("amqp://", "@mq.example.org/", sign=":x9"),
        "at_inside": _url("ftp://", "@files.example.com/in", sign="@z7"),
        "path": _url("https://", "@git.example.com:8443/a/b.git?ref=main#top"),
        "elastic": _url("http://", "@search.example.org:9200"),
        "svn": _url("svn+ssh://", "@svn.example.net/trunk"),
        "cassandra": _url("cassandra://", "@c1.example.net/keyspace"),
        "imap": _url("imap://", "@mail.example.org:143/INBOX"),
        "short_host": _url("postgres://", "@db/shop"),
    },
    "NATIONAL_ID": {},
}  # fmt: skip
NATIONAL: dict[str, Callable[[_R], tuple[str, str]]] = {
    "us": lambda r: ("social sec. number", ids.cut(ids.us(r), 3, 2, 4, by="-")),
    "us_plain": lambda r: ("taxpayer id (SSN)", ids.us(r)),
    "uk": lambda r: ("N.I. number", ids.nino(r)),
    "uk_words": lambda r: ("Nat. Insurance no", ids.cut(ids.nino(r), 2, 2, 2, 2, by=" ")),
    "nhs": lambda r: ("NHS no", ids.cut(ids.nhs(r), 3, 3, 4, by="-")),
    "de": lambda r: ("Steuer-ID-Nr.", ids.cut(ids.steuer_id(r), 2, 3, 3, 3, by=" ")),
    "de_plain": lambda r: ("persönliche Identifikationsnummer", ids.steuer_id(r)),
    "fr": lambda r: ("numéro de carte vitale", ids.cut(ids.nir(r), 1, 2, 2, 2, 3, 3, 2, by=" ")),
    "fr_insee": lambda r: ("numéro INSEE", f"{(v := ids.nir(r))[:13]}/{v[13:]}"),
    "es": lambda r: ("documento nacional de identidad", f"{(v := ids.dni(r))[:8]} - {v[8]}"),
    "es_nie": lambda r: ("N.I.E.", ids.nie(r)),
    "it": lambda r: ("cod. fisc.", ids.codice_fiscale(r)),
    "it_spaces": lambda r: ("codice fiscale", ids.cut(ids.codice_fiscale(r), 3, 3, 5, 4, by=" ")),
    "nl": lambda r: ("burgerservicenr.", ids.bsn(r)),
    "nl_dots": lambda r: ("BSN", ids.cut(ids.bsn(r), 3, 2, 4, by=".")),
    "be": lambda r: ("registre national n°", ids.cut(ids.belgian(r), 6, 3, 2, by=" ")),
    "pl": lambda r: ("numer ewidencyjny PESEL", ids.pesel(r)),
    "se": lambda r: ("personnumret", ids.cut(ids.swedish(r), 6, 4, by="-")),
    "se_long": lambda r: ("svenskt personnummer", ids.cut(f"19{ids.swedish(r)}", 8, 4, by="-")),
    "no": lambda r: ("norsk fødselsnr", ids.cut(ids.norwegian(r), 2, 2, 2, 5, by=" ")),
    "dk": lambda r: ("dansk cpr", ids.cut(ids.danish(r), 6, 4, by="-")),
    "fi": lambda r: ("hetuni", ids.finnish(r)),
    "pt": lambda r: ("Número de Identificação Fiscal", ids.nif(r)),
    "br": lambda r: ("C.P.F.", f"{ids.cut(v := ids.cpf(r), 3, 3, 3, by='.')[:11]}-{v[9:]}"),
    "br_plain": lambda r: ("CPF/MF", ids.cpf(r)),
    "ca": lambda r: ("S.I.N.", ids.cut(ids.sin(r), 3, 3, 3, by=" ")),
    "in": lambda r: ("Aadhaar id", ids.cut(ids.aadhaar(r), 4, 4, 4, by=" ")),
    "au": lambda r: ("tax file nr", ids.tfn(r)),
    "ch": lambda r: ("n° AVS", ids.cut(ids.ahv(r), 3, 4, 4, 2, by=".")),
    "ch_plain": lambda r: ("AHV-Nummer (neu)", ids.cut(ids.ahv(r), 3, 4, 4, 2, by="-")),
    "tr": lambda r: ("kimlik numarası", ids.cut(ids.turkish(r), 5, 6, by=" ")),
}
AROUND = {
    "EMAIL": [
        "kindly update {} as primary", "I never got the code at {}", "Betreff: Konto {} gesperrt", "A: {}\nB: nothing",
        "perdí el acceso a {}", "mon ancien compte {} est bloqué", "l'account {} non esiste più", "a minha conta {}",
        "konto {} zablokowane", "kontot {} är låst", "kontoen {} virker ikke", "tili {} on lukittu",
        "účet {} nefunguje",
        "{} hesabım kapandı", "не могу войти как {}", "{} でログインできません", "wachtwoord resetten voor {}",
        "two accounts, this one is {}", "Q: which? A: {}", "sent from {}", "{}: no such user", "To: {}\nSubject: hi",
        "merge into {} please 🙏", "I typed {}, twice", "#account {}", "{} / gold member",
    ],
    "PHONE": [
        "the driver can call {}", "no answer under my phone {}", "Mobilnummer: {}", "téléphone portable {}",
        "mi teléfono es el {}", "il mio numero di telefono: {}", "o meu número de telefone é {}", "numer telefonu {}",
        "mobilnummer {}", "mit mobilnummer er {}", "puhelinnumeroni on {}", "můj telefon {}", "telefonum şu: {}",
        "номер телефона {}", "電話番号 {}", "电话 {}", "mijn mobiele nummer is {}", "WhatsApp me on {}",
        "Name: Mira\nMobile: {}\nFloor: 3", "| mobile | {} |", "call-back number (phone): {}", "phone no. {}",
        "contact phone {} between 9 and 5", "tel. {} (work)", "you called me from {}", "telefon {}\nE-Mail: keine",
    ],
    "CARD": [
        "use this card please {}", "Kartennummer {}", "ma carte : {}", "mi tarjeta es {}", "la carta numero {}",
        "o cartão {} foi recusado", "moja karta {}", "mitt kort {}", "mit kort {}", "korttini {}", "moje karta {}",
        "kartım {}", "моя карта {}", "卡号 {}", "mijn kaart {}", "card on file {}", "new card {} from today",
        "Zahlung mit {} abgelehnt", "why was {} blocked", "debit card {}", "the card is {} ok?", "> card {}",
        "Name: Mira\nCard: {}\nNote: gift", "{} is my credit card", "I want to replace card {}",
    ],
    "IBAN": [
        "please pay out to {}", "Lastschrift von {}", "mon RIB : {}", "transferir a {}", "bonifico su {}",
        "transferência para {}", "przelew na {}", "sätt in på {}", "overfør til {}", "maksa tilille {}",
        "pošlete na {}",
        "{} hesabına", "перевод на {}", "振込先 {}", "maak over naar {}", "wrong account, it is {}", "acct {}",
        "Name: Mira\nAccount: {}\nRef: lamp", "| account | {} |", "the bank says {} does not exist", "iban={}",
        "use {} for the deposit", "my husband's account {}", "{} (joint account)", "IBAN {} / Mira",
        "send it to {}, ok?",
    ],
    "IP": [
        "{}", "see the log\n{}\n", "I get this: {}", "c'est {}", "es ist {}", "es {}", "è {}", "é {}", "to {}",
        "det är {}",
        "> {}", "was ist {}", "```\n{}\n```", "support asked for it: {}", "line 12: {}", "and then {}", "again {}",
        "{} ???", "it shows {}", "output: {}", "- {}\n- nothing else", "here {}", "{} since noon", "warum {}", "1. {}",
    ],
    "KEY": ["{}", "{} - thanks", "note: {}", "please check\n{}", "Customer: {}", "it was {} all the time"],
    "CREDENTIALS": [
        "{}", "mount {} fails", "our feed is {}", "DSN = {}", "BROKER: {}", "use {} instead", "ist {} richtig?",
        "el enlace {} no va", "le lien {} ne marche pas", "il link {} non funziona", "o link {} não abre",
        "link {} nie działa", "länken {} fungerar inte", "linket {} virker ikke", "linkki {} ei toimi",
        "odkaz {} nefunguje", "{} bağlanmıyor", "ссылка {} не работает", "{} に接続できません", "de link {} werkt niet",
        "- {}", "> {}", "connect to '{}'", "see {} in the config", "I saved {} as bookmark", '{"url": "{}"}',
    ],
    "NATIONAL_ID": [
        "{name} {}", "{name}: {}", "{name} is {}", "{name}\n{}", "the {name} you wanted: {}", "{name} ({})",
        "{name}. {}", "here: {name} {}, ok?", "*{name}*: {}", "| {name} | {} | ok |", "{name};{}", "{name} -> {}",
        "meine {name} ist {}", "ma {name} : {}", "la mia {name}: {}", "tengo {name} {}", "a {name} {}", "to {name} {}",
        "min {name} {}", "moje {name} {}", "benim {name} {}", "mijn {name}: {}", "please note {name} {} in my file",
        "on the form under {name} I wrote {}", "{name} = {} (copied from the letter)", "Mira, {name} {}, Lisbon",
    ],
}  # fmt: skip
_UP = "ABCDEFGHJKLMNPRSTUVWXYZ"
NEGATIVES: list[Callable[[_R], str]] = [
    lambda _: "my password manager says the password is weak, what now?",
    lambda _: "jelszó, lozinka, parola: you all mean the same, and I have none of them",
    lambda _: "the licence key never arrived and the passcode screen stays black",
    lambda r: f"passwords expire after {r.randint(30, 90)} days, tokens after {r.randint(10, 48)} h",
    lambda r: f"password must have {r.randint(8, 14)}-{r.randint(20, 64)} characters",
    lambda r: f"narudžba br. {digits(r, 7, '123456789')} od {r.randint(1, 28)}.{r.randint(1, 12)}.2026.",
    lambda r: f"objednávka {digits(r, 10, '123456789')}, faktura {r.randint(2019, 2026)}{digits(r, 5)}",
    lambda r: f"sipariş no {digits(r, 9, '123456789')}",
    lambda r: f"注文番号 {digits(r, 3, '123')}-{digits(r, 7)}-{digits(r, 7)}",
    lambda r: f"bestelling {digits(r, 8, '123456789')} en retour R{digits(r, 6)}",
    lambda r: f"Sendung {digits(r, 12, '5')} liegt seit {r.randint(1, 28)}.{r.randint(1, 12)}. im Depot",
    lambda r: f"GLS {digits(r, 11, '5678')}, lot {r.choice(_UP)}{digits(r, 4)}",
    lambda r: f"Rechnung RE-{r.randint(2019, 2026)}-{digits(r, 5)}, Kd-Nr. {digits(r, 6, '123456789')}",
    lambda r: f"error 0x{values._chars(r, 8, _HEX)} at 0x{values._chars(r, 12, _HEX)}",
    lambda r: f"driver {r.randint(400, 600)}.{r.randint(10, 99)}.{r.randint(10, 99)}, BIOS 1.{r.randint(10, 99)}",
    lambda r: f"macOS {r.randint(11, 15)}.{r.randint(0, 6)}.{r.randint(0, 3)} ({r.randint(20, 25)}G{digits(r, 3)})",
    lambda r: f"postgres {r.randint(12, 18)}.{r.randint(0, 9)}, redis 7.{r.randint(0, 9)}.{r.randint(0, 20)}-alpine",
    lambda r: f"image shop/web:2026.{r.randint(1, 12)}.{r.randint(1, 28)}-{values._chars(r, 7, _HEX)}",
    lambda r: f"job {values._chars(r, 8, _HEX)}-{values._chars(r, 4, _HEX)} took {r.randint(10, 99)}m30s",
    lambda r: f"sha1 {values._chars(r, 40, _HEX)}  shop.iso",
    lambda r: f"crc32 {values._chars(r, 8, _HEX).upper()}, size {digits(r, 9, '123456789')} bytes",
    lambda r: f"{r.randint(1, 28):02d}-{r.randint(1, 12):02d}-2026 {r.randint(10, 23)}.{r.randint(10, 59)} Uhr",
    lambda r: f"Week {r.randint(1, 52)}/{r.randint(2024, 2027)}, shift 7-1{r.randint(4, 8)}, {r.randint(20, 40)} h",
    lambda r: f"{r.randint(2, 9)}.{digits(r, 3)},{digits(r, 2)} lei and {r.randint(10, 99)} {digits(r, 3)} Ft",
    lambda r: f"R$ {r.randint(1, 9)}.{digits(r, 3)},{digits(r, 2)} em {r.randint(2, 12)}x",
    lambda r: f"tyres 205/55 R16, {digits(r, 5, '123456789')} km, {r.randint(60, 200)} hp",
    lambda r: f"N 52° {r.randint(10, 59)}.{digits(r, 3)}' E 13° {r.randint(10, 59)}.{digits(r, 3)}'",
    lambda r: f"IMDb tt{digits(r, 7)}, DOI 10.1000/xyz{digits(r, 3)}, PMID {digits(r, 8, '123')}",
    lambda r: f"level {r.randint(2, 99)}, score {digits(r, 7, '123456789')}, combo x{r.randint(10, 99)}",
    lambda r: f"VAT {r.choice(('DE', 'AT', 'FR'))}{digits(r, 9)}, EORI DE{digits(r, 7)}",
]  # fmt: skip
