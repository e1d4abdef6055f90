"""Secrets that somebody calls so: `password: ...`, `la password è ...`, `api_key=...`, `Authorization: Bearer ...`.

A name in one of some thirty languages, what joins it to its value, and the value. The weaker what joins them, the more
a value must look made up: after a colon anything with a digit in it, after nothing but a space only `w1nter-2024`.
"""

from __future__ import annotations

import re
from itertools import groupby

from data_contracts.redaction.entities import Found

_CALLED = {
    "password": """password passwd passphrase passcode passwort passord kennwort losungswort wachtwoord contraseña
        contrasena contrasenya senha palavra_passe mot_de_passe mots_de_passe parola_d'ordine hasło haslo lösenord
        losenord adgangskode kodeord salasana jelszó jelszav jelszo lozinka lozinku zaporka şifre salasõna slaptažodis
        mật_khẩu kata_sandi пароль пароля лозинка парола κωδικός συνθηματικό パスワード 暗証番号 密码 密碼 口令 비밀번호
        암호 पासवर्ड كلمة_المرور كلمة_السر رمز_عبور סיסמה סיסמא รหัสผ่าน""",
    "short": "pw pwd psw mdp heslo geslo sifre parool sandi",  # passwords, too, but also parts of other words
    "key": """secret secret_key token api_key access_key access_key_id account_key auth_key encryption_key private_key
        security_key master_key recovery_key service_key subscription_key signing_key admin_key server_key wifi_key
        wi-fi_key wlan_key wpa_key wpa2_key network_key wlan_schlüssel wifi_schlüssel wpa_schlüssel netzwerkschlüssel
        sicherheitsschlüssel netzwerksicherheitsschlüssel zugangscode wifi_code api_schlüssel api_sleutel api_nyckel
        api_nøgle api_nøkkel api_anahtarı api_kulcs api_avain clé_api clé_secrète clé_privée clé_wifi clave_api
        clave_secreta clave_privada clave_wifi chiave_api chiave_segreta chiave_privata chave_api chave_secreta
        klucz_api klíč_api x-amz-signature""",
    "unsure": "clave parola pass",  # other words, too: what follows must look made up
    "sign": "sig signature",
    "scheme": "bearer basic",
    "header": "authorization",
    "session": "sessionid session_id jsessionid phpsessid sessid session sess sid",
}
"""Names by kind; `_` stands for nothing, a space, a dash or itself."""
_KINDS = {
    name.replace("_", gap): kind
    for kind, names in _CALLED.items()
    for name in names.split()
    for gap in ("", " ", "-", "_")
}
_PARTS_OF_WORDS = frozenset(("short", "unsure", "sign", "scheme", "header", "session"))
"""Kinds whose names count at the beginning of a word only."""


def _one_of(words: list[str]) -> str:
    """An expression for the longest of the words, tried by first letter: five times as fast as one after the other."""
    words = sorted(words, key=lambda word: (word[0], -len(word)))
    letters = groupby(words, key=lambda word: word[0])
    return "|".join(f"{first}(?:{'|'.join(re.escape(word[1:]) for word in group)})" for first, group in letters)


_NAME = re.compile(_one_of(list(_KINDS)))
_IS = "is|ist|es|est|é|è|e'|lautet|was|war|era|été|är|er|je|jest|este"
_MAYBE_IS = "to|on|e|oli|var|byl[oa]?|był[oa]?|lautete|wordt|now|set to|changed to|это|είναι"
_FILLER = r"(?:[ ][^\W\d_][^\W\d_'\-]{0,15}|[ ]\([^()\n]{1,30}\)){1,4}?"
_VALUE = r"[\\\"'`]{0,2}(?P<value>[^\s\"'`<>,;&|]{6,256})"
_JOINED = (
    r"[\\\"'`*]{0,3}(?:"
    r"\s{0,3}(?:(?:[:=]{1,2}|[=\-]>)>?|\||\t)[\"'`*]{0,3}\s{0,3}"  # password: ..., | password | ... |
    r"|(?P<tag>>)|</t[dh]>\s{0,3}<td[^<>\n]{0,40}>"  # <password>..., <td>password</td><td>...
    rf"|[ ]{{1,2}}(?:{_IS})(?:[ ]{{1,2}}|[ ]?[:=][ ]{{0,2}})|(?:是|为|為|は|는|은)[ ]?"
    r"|(?P<weakly>"
    rf"{_FILLER}(?:[ ]?[:=][ ]{{0,2}}|[ ](?:{_IS}|{_MAYBE_IS})[ ])"  # password for the shop: ...
    rf"|[ ](?:(?:{_MAYBE_IS})[ ]|-{{1,2}}[ ]|)"  # hasło to ..., password ...
    r"))" + _VALUE
)
_PASSWORD = re.compile(r"[^\W\d_]{0,3}" + _JOINED)  # passwords, şifrem
_KEY = re.compile(_JOINED)
_OTHERS = {
    "scheme": re.compile("[ ]" + _VALUE),
    "header": re.compile(r"[\"']?[ ]{0,2}[:=][ ]{0,2}[\"']?(?:[a-z\-]{2,20}[ ])?" + _VALUE),
    "session": re.compile("=" + _VALUE),
}
_STEMS = (b"key", b"pass", b"token", b"secret")
_ASCII_WORDS = frozenset(
    word + ending
    for names in _CALLED.values()
    for name in names.encode("ascii", "ignore").split()
    if not any(stem in name for stem in _STEMS)
    for word in [max(re.split(rb"[_'\-]", name), key=len)]
    if len(word) > 2 or word == b"pw"
    for ending in (b"", b"m", b"n", b"s", b"t", b"am", b"em", b"et", b"ni")
)
"""What is left in ASCII of each name none of the stems is in, with the commonest endings of theirs."""
_ABROAD = ("арол", "озинк", "ωδικ", "υνθηματ", "パスワ", "暗証", "密码", "密碼", "口令", "비밀번호", "암호", "पासवर",
    "كلمة", "رمز", "סיסמ", "รหัส")  # fmt: skip
_LETTERS = bytes(c if 97 <= c <= 122 else 32 for c in range(256))
_NO_SECRET = re.compile(
    r"[a-z]*://.*"
    r"|(?:[0-3]?\d[./\-][0-3]?\d[./\-]|\d{4}[./\-][01]?\d[./\-])\d{2,4}.{0,9}"  # a date
    r"|\d{1,2}:\d\d(?::\d\d)?\W?(?:[ap]m)?\W?"
    r"|[a-z_]\w*(?:\.\w+)+[(\[].*|[a-z_]\w*\[[\w\-.:]*\].*",  # code: a call, an element
    re.I,
)
_NO_PASSWORD = re.compile(
    r"v?\d+(?:[.,\-]\d+)*[a-z%€$+]{0,8}"  # a version, a number, a number of something
    r"|(?-i:[A-Z]{1,6}-?\d+)|#[0-9a-f]{3,8}"
    r"|(?:sha|aes|rsa|md|base|utf|bcrypt|scrypt|argon|win|windows|office|microsoft|iphone|ios|android|web)-?\d+.{0,3}",
    re.I,
)
_INNER_DIGIT = re.compile(r"[^\W\d_].*\d.*[^\W\d_]")
_MARK = re.compile(r"[!?$%*@#^~+=_]|-\d{3}|\d-[^\W\d_]|\d{3}")


def may_be_named(low: bytes, text: str) -> bool:
    """True if a word that could name a secret is in a text, or in its lower-case ASCII."""
    if (
        b"key" in low
        or b"pass" in low
        or b"token" in low
        or b"secret" in low
        or not _ASCII_WORDS.isdisjoint(low.translate(_LETTERS).split())
    ):
        return True
    if len(low) < len(text):
        for stem in _ABROAD:  # any() takes twice as long
            if stem in text:
                return True
    return False


def named(text: str) -> list[Found]:
    """What follows `password:`, `api_key=`, `Bearer` and the like and has a digit in it."""
    low = text.lower()
    if len(low) != len(text):  # U+0130 becomes two characters
        low = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    found = []
    for name in _NAME.finditer(low):
        kind = _KINDS[name[0]]
        if kind in _PARTS_OF_WORDS and name.start() and low[name.start() - 1].isalnum():
            continue
        pattern = _OTHERS.get(kind) or (_PASSWORD if kind in ("password", "short") else _KEY)
        match = pattern.match(low, name.end())
        if match is None or (
            kind not in _OTHERS and match["tag"] and "<" not in low[max(0, name.start() - 12) : name.start()]
        ):
            continue
        start = match.start("value")
        # A mark may belong to the password; a full stop or a bracket belongs to the sentence.
        value = text[start : match.end("value")].rstrip("\\.)]}")
        if _is_secret(kind, value, weakly=kind not in _OTHERS and match["weakly"] is not None):
            found.append(Found(start, start + len(value), "KEY", value))
    return found


def _is_secret(kind: str, value: str, *, weakly: bool) -> bool:
    """True if a value looks like what its name says it is; `weakly`: hardly anything joins it to its name."""
    if len(value) < 6 or not any(map(str.isdigit, value)) or _NO_SECRET.fullmatch(value):
        return False
    if len(value) < 8 and value.replace(".", "").isdigit():
        return False  # a number of something
    if kind == "session":
        return len(value) >= 16 and not value.isdigit()
    if kind == "unsure" or (weakly and kind in ("password", "short")):
        return (not weakly or kind != "unsure") and _is_made_up(value)
    if weakly:
        plain = value.replace("-", "").replace("_", "")
        return kind == "key" and len(value) >= 16 and plain.isalnum() and not plain.isdigit()
    return True


def _is_made_up(value: str) -> bool:
    """True for `w1nter`, `Kaffee-2024`, `iLoveCats22!`; not for `Windows11`, `ORD-12345`, `2.4.1`, `30days`."""
    if _NO_PASSWORD.fullmatch(value.rstrip("!?")) or not any(map(str.isalpha, value)):
        return False
    return _MARK.search(value) is not None or _INNER_DIGIT.search(value) is not None
