"""A sixth lot of formats, sentences and look-alikes, written after the fifth and without a look at any detector.

More languages and more layouts: forms, tables, mark-up, log lines, chats of two, mails. National numbers are of the
issuers of the earlier lots, under other names and in other spellings.
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
_LOWER = string.ascii_lowercase + string.digits
_UPPER = string.ascii_uppercase + string.digits


def _hex(rng: _R, n: int) -> str:
    return values._chars(rng, n, _HEX)


def _pass(rng: _R) -> str:
    """A password as people make them up."""
    return rng.choice(
        (
            f"{rng.choice(('Kaffee', 'Lisbon', 'Mango', 'Zebra', 'Pirate'))}-{digits(rng, 4)}",
            f"{rng.choice(('iLove', 'Vamos', 'Forza', 'Go'))}{rng.choice(('Cats', 'Jazz', 'Roma'))}{digits(rng, 2)}!",
            f"{rng.choice(('p@ss', 'w1nter', 'Passw0rd', 'L0ck'))}{digits(rng, 3)}",
            f"{values._chars(rng, 9)}{rng.choice('!?$%*')}{rng.choice(string.ascii_letters)}",
        )
    )


_MORE_IBAN = {
    "GR": "n7c16", "HU": "n24", "RO": "a4c16", "TR": "n6c16", "HR": "n17", "SK": "n20", "SI": "n15", "EE": "n16",
    "LV": "a4c13", "LT": "n16", "BG": "a4n6c8", "CY": "n8c16", "AE": "n19", "IL": "n19", "IS": "n22", "LI": "n5c12",
}  # fmt: skip


def _far_iban(rng: _R) -> str:
    """An IBAN of a country the earlier lots do not have."""
    country, bban = rng.choice(sorted(_MORE_IBAN)), ""
    spec = _MORE_IBAN[country]
    pools = {"n": string.digits, "a": string.ascii_uppercase, "c": _UPPER}
    for piece in spec.replace("n", " n").replace("a", " a").replace("c", " c").split():
        bban += "".join(rng.choices(pools[piece[0]], k=int(piece[1:])))
    number = int("".join(str(int(c, 36)) for c in bban + country) + "00")
    return f"{country}{98 - number % 97:02d}{bban}"


def _said(before: str, after: str = "", make: Callable[[_R], str] = _pass) -> Callable[[_R], str]:
    return lambda r: f"{before}\x02{make(r)}\x03{after}"


def _login(before: str, host: str, after: str = "", mark: str = "") -> Callable[[_R], str]:
    """`before` ends in the scheme; a password may have a sign in it."""

    def make(rng: _R) -> str:
        user = rng.choice((*values._FIRST, "svc_shop", "app-rw", "backup", "deploy"))
        return f"{before}\x02{user}:{values._chars(rng, rng.randint(8, 18))}{mark}\x03@{host}{after}"

    return make


FORMATS: dict[str, dict[str, Callable[[_R], str]]] = {
    "EMAIL": {
        "apostrophe": values._mail("{a}.o'{b}@{h}"),
        "umlaut": values._mail("{a}.grün@{h}"),
        "punycode": values._mail("{a}.{b}@xn--bcher-kva.example"),
        "percent": lambda r: f"https://shop.example.com/reset?user=\x02{values._mail('{a}.{b}%40{h}')(r)}\x03&lang=de",
        "entity": values._mail("{a}{n}&#64;{h}"),
        "angle_at": values._mail("{a}.{b}<at>{h}"),
        "spoken": values._mail("{a}.{b} at {b}{n} dot com"),
        "german_at": values._mail("{a}{n} (ät) {h}"),
        "glued": lambda r: f"Mail:\x02{values._mail('{a}_{b}@{h}')(r)}\x03,danke",
        "tag": lambda r: f"<email>\x02{values._mail('{b}.{a}@{h}')(r)}\x03</email>",
        "invite": lambda r: f"ATTENDEE;CN=Mira:mailto:\x02{values._mail('{a}@{h}')(r)}\x03",
        "cell": lambda r: f"| 17 | \x02{values._mail('{A}.{B}@{h}')(r)}\x03 | active |",
    },
    "PHONE": {
        "baltic_balkan": values._dial("+370 6## #####", "+371 2# ### ###", "+385 9# ### ####", "+386 31 ### ###"),
        "small": values._dial("+352 621 ### ###", "+354 N## ####", "+357 99 ######", "+423 N## ## ##"),
        "south_asia": values._dial("+92 3## #######", "+880 17##-######", "+94 77 ### ####", "+977 98########"),
        "south_east": values._dial("+63 917 ### ####", "+84 90 ### ## ##", "+66 8# ### ####"),
        "andes": values._dial("+593 9# ### ####", "+51 9## ### ###", "+598 9# ### ###", "+58 412 #######"),
        "bracket_code": values._dial("(+44) 7### ######", "(+49) 171 N######", "(0033) 6 ## ## ## ##"),
        "uk_local": values._dial("07###-######", "07### ### ###", "0161 4## ####", "01## ### ####"),
        "us_local": values._dial("N## N## ####", "1 (N##) N##-####", "N##/N##-####"),
        "fr_local": values._dial("06########", "07-##-##-##-##", "0033-6-##-##-##-##"),
        "it_es_local": values._dial("3## #######", "34#.#######", "6## ### ###", "6##-##-##-##"),
        "east_local": values._dial("5##-###-###", "7## ### ###", "8 9## ### ## ##", "07## ### ###"),
        "north_local": values._dial("070-### ## ##", "9## ## ###", "040 #######", "2# ## ## ##"),
        "wa_link": lambda r: f"https://wa.me/\x02{values._dial('49176N#######', '336########')(r)}\x03",
        "br_tr_local": values._dial("(21) 9 ####-####", "05## ### ## ##", "0 (5##) ### ## ##"),
        "unusual_dash": values._dial("+49\u2011171\u2011N######", "+41\u201379\u2013###\u2013##\u2013##"),
    },
    "CARD": {
        "narrow": values._card(("4", "53"), 16, 4, 4, 4, 4, by="\u202f"),
        "hard_hyphen": values._card(("4",), 16, 4, 4, 4, 4, by="\u2011"),
        "slashes": values._card(("51",), 16, 4, 4, 4, 4, by="/"),
        "underscores": values._card(("4",), 16, 4, 4, 4, 4, by="_"),
        "mir_troy": values._card(("2200", "2202", "9792"), 16, 4, 4, 4, 4),
        "maestro": values._card(("5018", "5020", "6304"), 16, 4, 4, 4, 4),
        "diners_38": values._card(("38",), 14, 4, 6, 4),
        "discover_644": values._card(("644", "649"), 16),
        "devanagari": lambda r: values._card(("4",), 16, 8, 8)(r).translate({c: c + 0x0936 for c in range(48, 58)}),
        "dump": lambda r: f"\x02{values._card(('4', '55'), 16)(r)}\x03|{r.randint(1, 12):02d}|2029|{digits(r, 3)}",
        "track": lambda r: f";\x02{values._card(('4', '52'), 16)(r)}\x03=29{r.randint(1, 12):02d}101{digits(r, 8)}?",
        "tag": lambda r: f"<cardNumber>\x02{values._card(('51', '4'), 16)(r)}\x03</cardNumber>",
        "brand": lambda r: f"VISA-\x02{values._card(('4',), 16, 4, 4, 4, 4)(r)}\x03",
        "amex_thin": values._card(("34", "37"), 15, 4, 6, 5, by="\u2009"),
    },
    "IBAN": {
        "far": _far_iban,
        "far_by_4": lambda r: values._cut(v := _far_iban(r), *([4] * (len(v) // 4))),
        "country_apart": lambda r: f"{(v := values._iban(' ')(r))[:2]} {v[2:]}",
        "head_apart": lambda r: f"{(v := values._iban()(r))[:4]} {v[4:]}",
        "bank_apart": lambda r: f"{(v := values._iban(countries=('DE',))(r))[:4]} {v[4:12]} {v[12:]}",
        "dots": values._iban("."),
        "narrow": values._iban("\u202f"),
        "entity": values._iban("&nbsp;"),
        "tag": lambda r: f"<IBAN>\x02{values._iban()(r)}\x03</IBAN>",
        "swift_field": lambda r: f":25:\x02{values._iban()(r)}\x03",
        "glued_dash": lambda r: f"IBAN-\x02{values._iban()(r)}\x03",
        "lower_far": lambda r: _far_iban(r).lower(),
    },
    "IP": {
        "mail_header": lambda r: f"Received: from mx.example.org ([\x02{values._ip4(r)}\x03])",
        "bind": lambda r: f"client \x02{values._ip4(r)}\x03#{r.randint(1024, 65000)}: query",
        "tcp": lambda r: f"dial tcp \x02{values._ip4(r)}\x03:443: i/o timeout",
        "ssh": lambda r: f"ssh -p 2222 root@\x02{values._ip4(r)}\x03",
        "access_log": lambda r: f'\x02{values._ip4(r)}\x03 - - [10/Oct/2025:13:55:36 +0200] "GET / HTTP/1.1" 200 2326',
        "sshd": lambda r: f"Failed password for invalid user admin from \x02{values._ip4(r)}\x03 port 51022 ssh2",
        "defanged": lambda r: values._ip4(r).replace(".", "[.]"),
        "v6_url": lambda r: f"http://[\x02{values._ip6(4)(r)}\x03]:8080/",
        "v6_local": lambda r: f"fd{digits(r, 2)}:{values._chars(r, 4, _HEX)}:{digits(r, 4, '123')}::{r.randint(1, 99)}",
        "v6_middle": lambda r: f"2a02:8108:{values._chars(r, 4, 'abc')}::{digits(r, 3, '123')}:{r.randint(1, 99):x}",
        "tag": lambda r: f"<ip>\x02{values._ip4(r)}\x03</ip>",
        "cell": lambda r: f"| \x02{values._ip4(r)}\x03 | offline |",
        "nat64": lambda r: f"64:ff9b::{values._ip4(r)}",
    },
    "KEY": {
        "portuguese": _said("a minha senha é "),
        "brazil": _said("senha: "),
        "polish": _said("moje hasło to "),
        "swedish": _said("mitt lösenord är "),
        "danish": _said("adgangskode: "),
        "finnish": _said("salasanani on "),
        "czech": _said("heslo: "),
        "turkish": _said("şifrem "),
        "russian": _said("пароль: "),
        "japanese": _said("パスワード: "),
        "chinese": _said("密码是"),
        "spanish": _said("mi clave es "),
        "french": _said("Mot de passe provisoire : "),
        "german": _said("Kennwort lautet "),
        "wifi": _said("WLAN-Schlüssel: ", make=lambda r: digits(r, 16, "123456789") + r.choice("abcdef")),
        "temporary": _said("my temporary password was "),
        "pw": _said("user mira, pw "),
        "cell": _said("| Password | ", " |"),
        "tag": _said("<password>", "</password>"),
        "ini": _said("[db]\nuser = shop\npasswd = ", "\nport = 5432"),
        "option": _said("mysql -u shop --password=", " -h db.example.org"),
        "curl": _said("curl -H 'Authorization: token ", "' https://x.example.com", lambda r: _hex(r, 40)),
        "jdbc": _said("jdbc:mysql://db.example.org/shop?user=app&password=", "&useSSL=true"),
        "cookie": _said("Cookie: sessionid=", "; theme=dark", lambda r: values._chars(r, 32, _LOWER)),
        "docker": _said("docker run -e API_TOKEN=", " shop/app", lambda r: values._chars(r, 32)),
        "toml": _said('refresh_token = "', '"', lambda r: values._chars(r, 48)),
        "google_oauth": values._secret("GOCSPX-", 28),
        "twilio": lambda r: f"auth token \x02{values._chars(r, 32, _HEX)}\x03",
        "databricks": values._secret("dapi", 32, _HEX),
        "vault": values._secret("hvs.", 90),
        "atlassian": lambda r: f"ATATT3xFfGF0{values._chars(r, 120)}={digits(r, 8, '23456789')}",
        "replicate": values._secret("r8_", 37),
        "grafana": lambda r: f"glsa_{values._chars(r, 32)}_{values._chars(r, 8, _HEX)}",
        "ec_pem": lambda r: (
            "-----BEGIN EC PRIVATE KEY-----\n"
            + base64.b64encode(r.randbytes(90)).decode()
            + "\n-----END EC PRIVATE KEY-----"
        ),
    },
    "CREDENTIALS": {
        "jdbc": _login("jdbc:postgresql://", "db.example.org:5432/shop"),
        "git": _login("git+https://", "git.example.com/team/shop.git"),
        "clickhouse": _login("clickhouse://", "ch.example.net:9000/events"),
        "mqtt": _login("mqtts://", "broker.example.org:8883"),
        "camera": _login("rtsp://", "cam.example.net:554/stream1"),
        "upper": _login("HTTPS://", "WWW.EXAMPLE.COM/LOGIN"),
        "localhost": _login("mysql://", "localhost/test"),
        "nats": _login("nats://", "nats.example.org:4222"),
        "webdav": _login("davs://", "cloud.example.org/remote.php"),
        "signs": _login("https://", "api.example.com/v2", mark="!"),
        "share": _login("smb://", "nas.example.org/photos"),
        "search": _login("https://", "es-node.example.net:9200/_cat/indices?v"),
        "mssql": _login("mssql+pyodbc://", "sql.example.org/erp?driver=ODBC+Driver+18"),
    },
    "NATIONAL_ID": {},
}  # fmt: skip
NATIONAL: dict[str, Callable[[_R], tuple[str, str]]] = {
    "us_hash": lambda r: ("Social Security #", ids.cut(ids.us(r), 3, 2, 4, by="-")),
    "us_tin": lambda r: ("SSN/TIN", ids.us(r)),
    "us_lower": lambda r: ("ssn", ids.cut(ids.us(r), 3, 2, 4, by=" ")),
    "uk_dots": lambda r: ("National Insurance No.", ids.cut(ids.nino(r), 2, 2, 2, 2, by=".")),
    "uk_lower": lambda r: ("nino", ids.cut(ids.nino(r), 2, 2, 2, 2, by=" ").lower()),
    "nhs": lambda r: ("NHS num", ids.cut(ids.nhs(r), 3, 3, 4, by=" ")),
    "de_long": lambda r: ("Steuer-Identifikationsnummer", ids.steuer_id(r)),
    "de_dash": lambda r: ("Steuer-IdNr.", ids.cut(ids.steuer_id(r), 2, 3, 3, 3, by="-")),
    "fr_short": lambda r: ("numéro de sécu", ids.cut(ids.nir(r), 1, 2, 2, 2, 3, 3, 2, by="\u00a0")),
    "fr_ss": lambda r: ("n° SS", ids.nir(r)),
    "es_lower": lambda r: ("DNI/NIF", ids.dni(r).lower()),
    "es_nie": lambda r: ("número de extranjero (NIE)", f"{(v := ids.nie(r))[:8]} {v[8]}"),
    "it_short": lambda r: ("cod.fisc.", ids.codice_fiscale(r)),
    "it_dash": lambda r: ("Codice Fiscale", ids.cut(ids.codice_fiscale(r), 6, 5, 5, by="-")),
    "nl_old": lambda r: ("sofinummer", ids.bsn(r)),
    "nl_spaces": lambda r: ("BSN nr", ids.cut(ids.bsn(r), 3, 3, 3, by=" ")),
    "be_niss": lambda r: ("NISS", f"{ids.cut(v := ids.belgian(r), 2, 2, 2, by='.')[:8]} {v[6:9]} {v[9:]}"),
    "be_insz": lambda r: ("INSZ-nummer", f"{(v := ids.belgian(r))[:6]} {v[6:9]} {v[9:]}"),
    "pl": lambda r: ("nr PESEL", ids.cut(ids.pesel(r), 6, 5, by=" ")),
    "se_short": lambda r: ("personnr.", ids.cut(ids.swedish(r), 6, 4, by=" ")),
    "se_12": lambda r: ("pnr", f"19{ids.swedish(r)}"),
    "no": lambda r: ("fødselsnummeret mitt", ids.cut(ids.norwegian(r), 6, 5, by="-")),
    "dk": lambda r: ("CPR-nr.", ids.cut(ids.danish(r), 6, 4, by=" ")),
    "fi": lambda r: ("henkilötunnukseni", ids.finnish(r)),
    "pt": lambda r: ("n.º de contribuinte", ids.cut(ids.nif(r), 3, 3, 3, by=".")),
    "br": lambda r: ("CPF nº", f"{ids.cut(v := ids.cpf(r), 3, 3, 3, by='.')[:11]}/{v[9:]}"),
    "ca": lambda r: ("SIN #", ids.cut(ids.sin(r), 3, 3, 3, by="-")),
    "ca_french": lambda r: ("NAS", ids.cut(ids.sin(r), 3, 3, 3, by=" ")),
    "in_hindi": lambda r: ("आधार संख्या", ids.cut(ids.aadhaar(r), 4, 4, 4, by=" ")),
    "in_uid": lambda r: ("Aadhaar/UID", ids.cut(ids.aadhaar(r), 4, 4, 4, by=".")),
    "au": lambda r: ("Tax File Number (TFN)", ids.cut(ids.tfn(r), 3, 3, 3, by="-")),
    "ch": lambda r: ("Sozialversicherungsnummer", ids.cut(ids.ahv(r), 3, 4, 4, 2, by=".")),
    "ch_oasi": lambda r: ("OASI number", ids.ahv(r)),
    "tr": lambda r: ("TCKN", ids.turkish(r)),
    "tr_no": lambda r: ("TC no", ids.cut(ids.turkish(r), 3, 3, 3, 2, by=" ")),
}
AROUND = {
    "EMAIL": [
        "Agent: which address do you use?\nCustomer: {}", "Von: Kundendienst\nAn: {}\nBetreff: Rückgabe",
        "L'adresse {} n'est pas reconnue", "la mia mail è {}", "scrivetemi a {}", "o meu e-mail é {}",
        "mój adres to {}", "min mejl är {}", "skriv til {}", "sähköpostini on {}", "můj e-mail: {}",
        "e-postam {} oldu", "моя почта {}", "メールは {} です", "mijn adres is {}", "I changed it to {}",
        "1. open account\n2. enter {}\n3. nothing happens", "{} (work)", "\t{}\t", "user:{}",
        "Name: Mira\nE-mail: {}\nTopic: refund", "- {}\n", "Reply-To: {}", "nobody reads {}!", "¿pueden escribir a {}?",
        "{} bounced twice", "the newsletter still goes to {} ...",
    ],
    "PHONE": [
        "Agent: what is your number?\nCustomer: my phone is {}", "Name: Mira\nPhone: {}\nTopic: delivery",
        "Rufnummer: {}", "rappelez-moi au {} svp", "mon portable est le {}", "il mio cellulare è {}",
        "chiamatemi al {}", "o meu telemóvel é {}", "meu celular: {}", "mój telefon: {}", "ring mig på {}",
        "mit telefonnummer er {}", "puhelin {}", "telefonní číslo {}", "telefonum {}", "мой телефон {}",
        "mijn telefoonnummer is {}", "llámame al {}", "mi móvil es {}", "text me at {}", "sms an {} bitte",
        "| phone | {} |", "cell: {}", "fax: {}", "the courier should phone {} before he comes", "telefon: {}",
        "landline {}", "my husband's mobile number is {}",
    ],
    "CARD": [
        "Agent: the card please?\nCustomer: {}", "carte bancaire {}", "la mia carta è {}", "tarjeta {}",
        "cartão n.º {}", "karta {}", "kortnummer {}", "maksukortti {}", "kart numaram {}", "номер карты {}",
        "カード番号 {}", "kaartnummer {}", "Amount: 49.90 EUR\nCard: {}\nStatus: failed", "| card | {} |",
        "I typed {} and it says invalid", "{} <- this one expired", "numéro {}", "\t{}\t", "> {}\n",
        "refund goes to {} right?", "my wife's card {} too", "Kreditkartennummer: {}", "pay by {}",
        "it took the money from {} twice", "cc {}",
    ],
    "IBAN": [
        "Agent: where shall we refund?\nCustomer: {}", "Name: Mira\nBank: example\nIBAN: {}", "virement vers {}",
        "il mio iban è {}", "mi cuenta es {}", "o meu IBAN é {}", "numer konta {}", "mitt konto {}", "mit konto er {}",
        "tilinumero {}", "číslo účtu {}", "hesap no {}", "счёт {}", "rekeningnummer {}", "debit {} monthly",
        "| iban | {} |", "{} is closed", "\t{}\t", "- {}\n", "SEPA mandate for {} please", "from {} to you",
        "Erstattung auf {} bitte", "bank details: {}", "the new account {} from May on", "> {}", "please, not {}!",
    ],
    "IP": [
        "Agent: your address?\nCustomer: {}", "l'adresse {} est bloquée", "il server {} non risponde",
        "mi ip es {}", "o servidor {} caiu", "adres {} nie działa", "servern {} svarar inte", "serveren {} er nede",
        "palvelin {} ei vastaa", "nelze se připojit na {}", "sunucu {} kapalı", "сервер {} не отвечает",
        "geblokkeerd: {}", "curl: (7) Failed to connect: {}", "1) {}\n2) reboot", "allow {} in the firewall",
        "\t{}\t", "> {}", "log:\n{}\nend of log", "{} times out since Monday", "is {} yours?", "DNS says {}",
        "the router shows {}", "login from {} was not me", "`{}`", "Gerät {} offline",
    ],
    "KEY": ["{}", "see below\n{}", "hi, {} ok?", "{} and it does not work", "> {}", "for the test account: {}"],
    "CREDENTIALS": [
        "{}", "Agent: which URL?\nCustomer: {}", "impossible de joindre {}", "non riesco ad aprire {}",
        "no puedo abrir {}", "nie mogę otworzyć {}", "kan inte nå {}", "kann {} nicht öffnen", "{} açılmıyor",
        "не открывается {}", "DATABASE_URL={}", 'url: "{}"', "<{}>", "[link]({})", "| source | {} |",
        "remote: {}\n", "> {}", "1. {}\n2. timeout", "fatal: unable to access '{}': 403", "({})", "`{}`",
        "export BROKER={}", "can you test {} please", "endpoint={};", "in settings.py we have {}",
        "werkt {} bij jullie?",
    ],
    "NATIONAL_ID": [
        "Agent: {name}?\nCustomer: {name} is {}", "Name: Mira\n{name}: {}\nCity: Porto", "| {name} | {} |",
        "{name}\t{}", "- {name}: {}\n", "{name}:{}", "{name}={}", "<b>{name}</b> {}", '"{name}": "{}"',
        "my {name}: {} - do you need more?", "I sent {name} {} by post already", "le {name} est {}",
        "il mio {name} è {}", "mi {name} es {}", "o meu {name} é {}", "mój {name} to {}", "mitt {name} är {}",
        "mein {name} lautet {}", "mijn {name} is {}", "{name} olarak {}", "as {name} I entered {}", "{} ({name})",
        "{name} – {}", "1) {name} {}\n2) address", "the form wants my {name}, so {}", "> {name}: {}",
        "{name} no longer accepted: {}",
    ],
}  # fmt: skip
_UP = "ABCDEFGHJKLMNPRSTUVWXYZ"
NEGATIVES: list[Callable[[_R], str]] = [
    lambda _: "la password è sbagliata, dice il sito",
    lambda _: "the password is not accepted and the token has expired",
    lambda _: "das Passwort ist falsch, obwohl ich es kopiert habe",
    lambda _: "mot de passe oublié : que faire ?",
    lambda _: "mijn wachtwoord is verlopen en mijn code is geweigerd",
    lambda _: "hasło jest niepoprawne; a senha é inválida; lösenordet är fel",
    lambda _: "password: at least twelve characters, one digit",
    lambda _: "API key: where do I find it? Secret: what is that?",
    lambda r: f"commande FR{digits(r, 8)} expédiée, colis 8R{digits(r, 11)}",
    lambda r: f"zamówienie nr {digits(r, 5, '123456789')}/{r.randint(2020, 2026)}",
    lambda r: f"n. ordine {r.randint(100, 999)}-{digits(r, 7)}-{digits(r, 7)}",
    lambda r: f"pedido {digits(r, 8, '123456789')} de {r.randint(1, 28)} de marzo",
    lambda r: f"Chargen-Nr. {''.join(r.choices(_UP, k=1))}{digits(r, 6)}, MHD {r.randint(1, 28):02d}.11.2027",
    lambda r: f"ASIN B0{''.join(r.choices(_UP + '0123456789', k=8))}",
    lambda r: f"SSCC (00){digits(r, 18, '3')}",
    lambda r: f"BIC DEUTDEFF{digits(r, 3)}, Handelsregister HRB {digits(r, 5, '123456789')}",
    lambda r: f"pod shop-web-{values._chars(r, 10, _HEX)}-{values._chars(r, 5, _LOWER)} restarted {r.randint(2, 90)}x",
    lambda r: f'integrity="sha384-{base64.b64encode(r.randbytes(48)).decode()}"',
    lambda r: f"ETag: W/\"{values._chars(r, 10, _HEX)}-{values._chars(r, 11)}\"",
    lambda r: f"layer sha256:{values._chars(r, 12, _HEX)}: Pull complete",
    lambda r: f"at com.shop.Cart.pay(Cart.java:{r.randint(10, 999)}) ~[app-2.{r.randint(0, 9)}.{r.randint(0, 9)}.jar]",
    lambda r: f"cron 0 {r.randint(1, 23)} * * 1-5, next 2026-06-{r.randint(10, 28)} 0{r.randint(1, 9)}:00",
    lambda r: f"android {r.randint(9, 15)}, build AP{r.randint(1, 4)}A.{digits(r, 6)}.{digits(r, 3)}",
    lambda r: f"Edg/{r.randint(100, 140)}.0.{r.randint(1000, 3000)}.{r.randint(10, 99)} on iOS 17.{r.randint(0, 7)}.1",
    lambda r: f"go1.{r.randint(18, 25)}.{r.randint(0, 12)}, node v{r.randint(16, 24)}.{r.randint(0, 20)}.0",
    lambda r: f"{r.randint(1, 28):02d}/{r.randint(1, 12):02d}/2026 alle {r.randint(10, 22)}:30, tavolo 7",
    lambda r: f"{r.randint(1, 9)} {digits(r, 3)} {digits(r, 3)} Ft, 12 {digits(r, 3)} Kč, 7.{digits(r, 3)} TL",
    lambda r: f"¥{digits(r, 2, '123456789')},{digits(r, 3)} and {r.randint(1, 99)},{digits(r, 2)} lei",
    lambda r: f"resistance {r.randint(1000, 9999)} ohm, {r.randint(100, 180)}-240 V, {r.randint(1000, 9999)} rpm",
    lambda r: f"id {digits(r, 18, '123456789')} in the list",
    lambda r: f"boarding 1{r.randint(0, 9)}:{r.randint(10, 59)}, ticket {digits(r, 3, '123456789')}-{digits(r, 10)}",
    lambda r: f"{r.randint(10, 99)}% of {digits(r, 7, '123456789')} users, p = 0.0{digits(r, 4)}",
    lambda r: f"color rgb({r.randint(0, 255)}, {r.randint(0, 255)}, {r.randint(0, 255)}), #{values._chars(r, 8, _HEX)}",
    lambda r: f"section {r.randint(1, 9)}.{r.randint(1, 9)}.{r.randint(1, 12)}, page {digits(r, 3)}, ISO 9001:2015",
]  # fmt: skip
