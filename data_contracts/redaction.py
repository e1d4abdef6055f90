"""Personal data and secrets out of text, before it is stored and again before it trains. Standard library only.

E-mail addresses, phone numbers, payment cards (Luhn), IBANs (mod 97), IP addresses, API keys and tokens, and
credentials in URLs become placeholders such as `<EMAIL_1>`. Inside one conversation the same value always gets the
same placeholder, so the text still makes sense; nothing leads back from the placeholder to the value.

    Redactor().redact("write to ann@example.com")  ->  ("write to <EMAIL_1>", {"EMAIL": 1})

Every pattern starts at a boundary or a literal and is bounded from there, so the time is linear in the text's length.
Redacting twice changes nothing: placeholders are never touched, and a new value takes the next free number.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

ENTITIES = ("CREDENTIALS", "KEY", "EMAIL", "IBAN", "CARD", "IP", "PHONE")
PLACEHOLDER = re.compile(r"<(" + "|".join(ENTITIES) + r")_(\d{1,6})>")
MAX_PASSES = 6

_M = TypeVar("_M")
_Pseudonym = Callable[[str, str], str]

# --- patterns ------------------------------------------------------------------------------------

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@:<>]{1,256}:[^\s/@<>]{1,256}(?=@)")
_EMAIL = re.compile(r"(?<![\w.%+\-])[\w.%+\-][\w.%+\-']{0,253}@[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}(?<![.\-_])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d(?:[ \-]?[A-Za-z0-9]){11,30}")
_DIGIT_RUN = re.compile(r"(?<![\d<_])\d(?:[ \-./\u00a0\u2007\u2009\u202f]?\d){12,63}")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
# Between two characters of words or addresses only: emoji joiners and clean text elsewhere keep theirs.
_HIDDEN = re.compile(rf"(?<=[\w.@%+\-])[{_ZERO_WIDTH}]{{1,64}}(?=[\w.@%+\-])")
_WORD = re.compile(r"\S+")
_WIDE_AT = str.maketrans({"\uff20": "@", "\ufe6b": "@", "\uff0e": "."})
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3}(?![\w:])")
_PHONE = re.compile(
    r"(?<![\w.+\-/<])"
    r"(?:"
    r"(?:\+|00(?=[1-9]))\d(?:[ ().\-/]{0,2}\d){6,14}"  # +49 (0)30 1234-567, 0049 30 ...
    r"|\(0\d{1,4}\)[ ]?\d(?:[ \-/]?\d){4,9}"  # (030) 123456
    r"|0\d{9,10}"  # 01712345678
    r"|0\d{2,4}[ /\-]{1,3}\d{3,4}(?:[ \-]?\d{2,4}){1,2}"  # 030 1234567, 020 7946 0958
    r"|0\d{2,4}/\d{2,4}(?:[ \-]\d{2,4}){2,4}"  # 0171/23 45 67 89
    r"|0\d{4,5}[ /\-]\d{5,7}"  # 098765 43210
    r"|0\d(?:[ .\-]\d\d){4}"  # 01 23 45 67 89
    r"|(?:1[ .\-])?(?:\(\d{3}\)[ ]?|\d{3}[ .\-])\d{3}[ .\-]\d{4}"  # 555-123-4567
    r")(?![\w])"
)
_KEY_LITERAL = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----[A-Za-z0-9+/=\s]{0,8192}(?:-----END [A-Z ]{0,32}PRIVATE KEY-----)?"
    r"|(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_\-]{16,256}"
    r"|[sprw]k_(?:live|test)_[A-Za-z0-9]{10,256}"
    r"|whsec_[A-Za-z0-9+/=]{16,128}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{20,255}"
    r"|glpat-[A-Za-z0-9_\-]{16,64}"
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,255}"
    r"|(?:AKIA|ASIA|AGPA|AROA)[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_\-]{30,45}"
    r"|ya29\.[0-9A-Za-z_\-]{20,512}"
    r"|hf_[A-Za-z0-9]{20,64}"
    r"|npm_[A-Za-z0-9]{30,64}"
    r"|SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}"
    r"|eyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]{4,4096}(?:\.[A-Za-z0-9_\-]{0,1024})?"
    r")"
)
_KEY_NAMED = re.compile(
    r"(?i)(?<![a-z])(?:api[_ \-]?key|access[_ \-]?key|secret[_ \-]?key|client[_ \-]?secret|secret|password|passwd|pwd|"
    r"auth[_ \-]?token|access[_ \-]?token|token|bearer)"
    r"(?:[ ]{0,2}(?:[:=]|\bis\b)[ ]{0,2}|(?<=bearer)[ ])[\"']?(?P<value>[^\s\"'<>,;]{6,256})"
)
_KEY_RANDOM = re.compile(r"(?<![A-Za-z0-9_\-])[A-Za-z0-9_\-]{32,512}(?![A-Za-z0-9_\-])")
_KEY_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_.\-:])[A-Za-z0-9+/]{40}={0,2}(?![A-Za-z0-9+/=_.\-])")
_UUID_LIKE = re.compile(r"(?i)^(?:[a-z]{1,12}-)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?:-[0-9a-f]{1,20})?$")
_KEY_TRIGGER = re.compile(r"(?i)key|secret|pass|pwd|token|bearer")

IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24, "PL": 28,
    "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "TN": 24,
    "TR": 26, "UA": 29, "VG": 24, "XK": 20,
}  # fmt: skip

# --- checks --------------------------------------------------------------------------------------


def luhn(digits: str) -> bool:
    """True if a string of decimal digits has a valid Luhn check digit."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char)
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


def iban_is_valid(compact: str) -> bool:
    """True if `compact` (no spaces, upper case) has its country's length and the ISO 7064 check digits."""
    if IBAN_LENGTHS.get(compact[:2]) != len(compact) or not compact.isascii() or not compact.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _card_issuer(digits: str) -> bool:
    """True if the first digits belong to a payment card network of that length."""
    length, two, four = len(digits), int(digits[:2]), int(digits[:4])
    if digits[0] == "4":
        return length in (13, 16, 19)
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return length == 16
    if two in (34, 37):
        return length == 15
    if two in (30, 36, 38, 39):
        return length in (14, 16, 19)
    return (two in (35, 60, 62, 64, 65, 81) and 16 <= length <= 19) or (
        two in (50, 56, 57, 58, 63, 67) and length >= 13
    )


def _entropy(text: str) -> float:
    """Shannon entropy of the characters, bits each."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _looks_random(token: str) -> bool:
    if _UUID_LIKE.match(token):
        return False
    digits = sum(c.isdigit() for c in token)
    if digits < 3 or digits == len(token):
        return False
    if re.fullmatch(r"[0-9a-fA-F]+", token):
        return _entropy(token) > 3.0
    return any(c.islower() for c in token) and any(c.isupper() for c in token) and _entropy(token) > 4.0


def _looks_encoded(token: str) -> bool:
    """Base64 of a secret, with `/` or `+` in it; a path of words has less entropy."""
    kinds = (str.islower, str.isupper, str.isdigit)
    return ("/" in token or "+" in token) and all(any(map(k, token)) for k in kinds) and _entropy(token) > 4.5


# --- one conversation ----------------------------------------------------------------------------


class RedactionSession:
    """The placeholders of one conversation: the same value has the same placeholder in every text it redacts."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}

    def reserve(self, text: str) -> None:
        """Keep the numbers of placeholders already in `text` from being given to other values."""
        if "<" in text:
            for found in PLACEHOLDER.finditer(text):
                self._last[found[1]] = max(self._last.get(found[1], 0), int(found[2]))

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text without personal data and secrets, and how many values were replaced, by entity."""
        self.reserve(text)
        counts: dict[str, int] = {}

        def pseudonym(entity: str, value: str) -> str:
            counts[entity] = counts.get(entity, 0) + 1
            key = (entity, value)
            if key not in self._known:
                self._last[entity] = self._last.get(entity, 0) + 1
                self._known[key] = f"<{entity}_{self._last[entity]}>"
            return self._known[key]

        # A replacement can end one value where another begins, so look again until nothing more is found.
        for _ in range(MAX_PASSES):
            before = text
            for step in _STEPS:
                text = step(text, pseudonym)
            if text == before:
                break
        return text, dict(sorted(counts.items()))


def _has_digit(text: str) -> bool:
    return any(d in text for d in "0123456789") or any(c.isdigit() for c in text if c > "\x7f")


def _credentials(text: str, name: _Pseudonym) -> str:
    return _CREDENTIALS.sub(lambda m: name("CREDENTIALS", m[0]), text) if "://" in text else text


def _keys(text: str, name: _Pseudonym) -> str:
    text = _KEY_LITERAL.sub(lambda m: name("KEY", m[0]), text)
    if not _has_digit(text):
        return text

    def named(found: re.Match[str]) -> str:
        value = found["value"].rstrip(".)")
        if len(value) < 6 or not any(c.isdigit() for c in value):
            return found[0]
        start = found.start("value") - found.start()
        return found[0][:start] + name("KEY", value) + found[0][start + len(value) :]

    if _KEY_TRIGGER.search(text):
        text = _KEY_NAMED.sub(named, text)
    text = _KEY_BASE64.sub(lambda m: name("KEY", m[0]) if _looks_encoded(m[0]) else m[0], text)
    return _KEY_RANDOM.sub(lambda m: name("KEY", m[0]) if _looks_random(m[0]) else m[0], text)


def _emails(text: str, name: _Pseudonym) -> str:
    if "@" not in text and "\uff20" not in text and "\ufe6b" not in text:
        return text
    if not text.isascii():
        text = _WORD.sub(_undisguised, text)
    return _EMAIL.sub(lambda m: name("EMAIL", m[0].casefold()), text)


def _undisguised(word: re.Match[str]) -> str:
    """A word without hidden characters if that shows an address, else as it was."""
    plain = _HIDDEN.sub("", word[0].translate(_WIDE_AT))
    return plain if "@" in plain and _EMAIL.search(plain) else word[0]


def _ibans(text: str, name: _Pseudonym) -> str:
    def replace(found: re.Match[str]) -> str:
        whole = found[0]
        length = IBAN_LENGTHS.get(whole[:2].upper(), 0)
        end = seen = 0
        while end < len(whole) and seen < length:
            seen += whole[end].isalnum()
            end += 1
        compact = re.sub(r"[ \-]", "", whole[:end]).upper()
        glued = end < len(whole) and whole[end].isalnum()
        if not length or glued or not iban_is_valid(compact):
            return whole
        return name("IBAN", compact) + whole[end:]

    return _IBAN.sub(replace, text)


def _cards(text: str, name: _Pseudonym) -> str:
    def replace(found: re.Match[str]) -> str:
        run = found[0]
        places = [i for i, c in enumerate(run) if c.isdigit()]
        digits = "".join(str(int(run[i])) for i in places)
        # A card may stand among other digits ("order 12 4111 ..."): try every piece between separators.
        starts = [0] + [k for k in range(1, len(places)) if places[k] - places[k - 1] > 1]
        ends = {*starts[1:], len(places)}
        for start in starts:
            for end in range(start + 19, start + 12, -1):
                piece = digits[start:end]
                if end in ends and _card_issuer(piece) and luhn(piece):
                    return run[: places[start]] + name("CARD", piece) + run[places[end - 1] + 1 :]
        return run

    return _DIGIT_RUN.sub(replace, text)


def _ips(text: str, name: _Pseudonym) -> str:
    def replace(found: re.Match[str]) -> str:
        value = found[0]
        tail = ""
        while value.endswith(":") and not value.endswith("::"):
            value, tail = value[:-1], ":" + tail
        try:
            address = ipaddress.ip_address(value)
        except ValueError:
            return found[0]
        if address.version == 6 and not any(c.isdigit() for c in value):
            return found[0]
        return name("IP", str(address)) + tail

    if "." in text:
        text = _IPV4.sub(replace, text)
    return _IPV6.sub(replace, text) if ":" in text else text


def _phones(text: str, name: _Pseudonym) -> str:
    def replace(found: re.Match[str]) -> str:
        digits = re.sub(r"\D", "", found[0])
        return name("PHONE", digits) if 8 <= len(digits) <= 16 else found[0]

    return _PHONE.sub(replace, text)


def _if_digits(step: Callable[[str, _Pseudonym], str]) -> Callable[[str, _Pseudonym], str]:
    return lambda text, name: step(text, name) if _has_digit(text) else text


_STEPS: tuple[Callable[[str, _Pseudonym], str], ...] = (
    _credentials,
    _keys,
    _emails,
    *(_if_digits(step) for step in (_ibans, _cards, _ips, _phones)),
)

# --- the part others call ------------------------------------------------------------------------


def contains_placeholder(text: str) -> bool:
    """True if the text holds a placeholder of a redacted value."""
    return "<" in text and PLACEHOLDER.search(text) is not None


class Redactor:
    """Redacts texts and conversations. Holds no state between calls, so threads may share one.

    Args:
        key: this installation's secret, only needed for `pseudonym`.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    def session(self) -> RedactionSession:
        """Placeholders for one conversation, to redact its messages and its answer consistently."""
        return RedactionSession()

    def redact(self, text: str) -> tuple[str, dict[str, int]]:
        """The text with placeholders, and how many values were replaced, by entity."""
        return RedactionSession().redact(text)

    def redact_messages(
        self, messages: Sequence[_M], session: RedactionSession | None = None
    ) -> tuple[list[_M], dict[str, int]]:
        """A conversation with placeholders that are consistent over all its messages.

        Args:
            messages: mappings with a `content` string, or pydantic records with a `content` field.
            session: to go on with the same placeholders afterwards (for the answer).

        Returns:
            copies of the same kind, in the same order, and the number of replaced values by entity.
        """
        session = session or RedactionSession()
        contents = [_content(message) for message in messages]
        for content in contents:
            session.reserve(content)
        out: list[_M] = []
        total: dict[str, int] = {}
        for message, content in zip(messages, contents, strict=True):
            text, counts = session.redact(content)
            out.append(message if text == content else _with_content(message, text))
            for entity, count in counts.items():
                total[entity] = total.get(entity, 0) + count
        return out, dict(sorted(total.items()))

    def pseudonym(self, value: str) -> str:
        """A keyed stand-in for a principal or an id: `p-` and 96 bits of HMAC-SHA256; needs the key.

        Raises:
            ValueError: the redactor was made without a key.
        """
        if self._key is None:
            raise ValueError("a pseudonym needs the installation's key")
        return "p-" + hmac.new(self._key, value.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:24]


def _content(message: Any) -> str:
    content = message["content"] if isinstance(message, Mapping) else message.content
    if not isinstance(content, str):
        raise TypeError(f"a message's content is text, not {type(content).__name__}")
    return content


def _with_content(message: _M, text: str) -> _M:
    if isinstance(message, Mapping):
        return {**message, "content": text}  # type: ignore[return-value]
    return message.model_copy(update={"content": text})  # type: ignore[attr-defined,no-any-return]
