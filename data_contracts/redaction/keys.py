"""Keys, tokens and passwords: known prefixes, named values, high entropy."""

from __future__ import annotations

import math
import re
from collections import Counter

from data_contracts.redaction.entities import Found

LONG = 16
"""Shortest word that is looked at for a token nobody named."""

_PEM = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s:,\-]{0,8192}?"
    r"-----END [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
    r"|-----BEGIN [A-Z ]{0,32}PRIVATE KEY(?: BLOCK)?-----[A-Za-z0-9+/=\s]{0,8192}"
)
_WORD = re.compile(r"\S{16,}")
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_\-]{16,256}"  # OpenAI, Anthropic and others
    r"|[sprw]k_(?:live|test)_[A-Za-z0-9]{10,256}"  # Stripe
    r"|whsec_[A-Za-z0-9+/=]{16,128}"
    r"|gh[pousr]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{20,255}"
    r"|gl(?:pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_\-]{16,64}"
    r"|xox[abeoprs]-[A-Za-z0-9\-]{10,255}|xapp-\d-[A-Za-z0-9\-]{10,255}"  # Slack
    r"|(?:AKIA|ASIA|AGPA|AROA|AIDA)[0-9A-Z]{16}"
    r"|AIza[0-9A-Za-z_\-]{30,45}"
    r"|ya29\.[0-9A-Za-z_\-]{20,512}"
    r"|hf_[A-Za-z0-9]{20,64}"
    r"|npm_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_\-]{40,255}|dckr_pat_[A-Za-z0-9_\-]{20,64}"
    r"|do[opr]_v1_[0-9a-f]{40,80}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{24,64}"
    r"|sq0[a-z]{3}-[0-9A-Za-z_\-]{20,64}|EAAA[0-9A-Za-z_\-]{50,80}"
    r"|(?:gsk|r8|pplx|nvapi|lin_api|sntrys|figd|glsa|dapi|PMAK|NRAK|ATATT|ATCTT)[_\-]?[A-Za-z0-9_\-=]{24,255}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{40,70}|hv[sb]\.[A-Za-z0-9_\-]{20,255}"
    r"|\d{8,10}:AA[0-9A-Za-z_\-]{32,36}"  # Telegram
    r"|SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}"
    r"|eyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]{4,4096}(?:\.[A-Za-z0-9_\-]{0,1024})?"  # JWT
    r")"
)
_NAMED = re.compile(
    r"(?:(?<![a-z])(?:api[_ \-]?key|access[_ \-]?key(?:[_ \-]?id)?|"
    r"(?:client|app|shared|consumer)?[_ \-]?secret(?:[_ \-]?key)?|"
    r"private[_ \-]?key|account[_ \-]?key|auth[_ \-]?key|encryption[_ \-]?key|"
    r"password|passwd|passphrase|passcode|passwort|"
    r"kennwort|wachtwoord|contraseña|contrasena|senha|mot de passe|pwd|"
    r"(?:auth|access|refresh|session|id|bot)?[_ \-]?token|x-amz-signature|sig(?:nature)?)"
    r"[\"']?[ ]{0,2}(?:[:=]{1,2}>?|\b(?:is|ist|es|est|é|lautet)\b)[ ]{0,2}"
    r"|(?<![a-z])(?:bearer|basic)[ ])"
    r"[\"']?(?P<value>[^\s\"'<>,;&]{6,256})",
    re.I,
)
_RANDOM = re.compile(r"(?<![A-Za-z0-9_\-])[A-Za-z0-9_\-]{32,512}(?![A-Za-z0-9_\-])")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_.\-:])[A-Za-z0-9+/]{40,512}={0,2}(?![A-Za-z0-9+/=_.\-])")
_UUID_LIKE = re.compile(r"(?:[a-z]{1,12}-)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?:-[0-9a-f]{1,20})?", re.I)
_HEX = re.compile(r"[0-9a-f_\-]+", re.I)


def _entropy(text: str) -> float:
    """Shannon entropy of the characters, bits each."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _looks_random(token: str) -> bool:
    """Upper and lower case and digits, well mixed. Plain hex is a digest or an id unless somebody calls it a key."""
    if _HEX.fullmatch(token) or _UUID_LIKE.fullmatch(token):
        return False
    return (
        sum(map(str.isdigit, token)) >= 3
        and any(map(str.islower, token))
        and any(map(str.isupper, token))
        and _entropy(token) > 4.0
    )


def _looks_encoded(token: str) -> bool:
    """Base64 of a secret, with `/` or `+` in it; a path of words has less entropy."""
    kinds = (str.islower, str.isupper, str.isdigit)
    return ("/" in token or "+" in token) and all(any(map(k, token)) for k in kinds) and _entropy(token) > 4.5


def pem(text: str) -> list[Found]:
    """Private keys in PEM blocks, cut off ones too."""
    return [Found(m.start(), m.end(), "KEY", m[0]) for m in _PEM.finditer(text)]


def tokens(text: str) -> list[Found]:
    """Words of 16 characters or more that are, or hold, a known or a random token."""
    found = []
    for word in _WORD.finditer(text):
        start, end = word.span()
        spans = [m.span() for m in _PREFIXED.finditer(text, start, end)]
        if end - start >= 32 and not spans:
            spans = [m.span() for m in _BASE64.finditer(text, start, end) if _looks_encoded(m[0])]
            spans += [m.span() for m in _RANDOM.finditer(text, start, end) if _looks_random(m[0])]
        found += [Found(a, b, "KEY", text[a:b]) for a, b in sorted(spans)]
    return found


def may_be_named(low: bytes) -> bool:
    """True if a word is in the lower-case ASCII of a text that could name a secret."""
    return (
        b"key" in low
        or b"pass" in low
        or b"token" in low
        or b"secret" in low
        or b"bearer" in low
        or b"wort" in low
        or b"woord" in low
        or b"contrase" in low
        or b"senha" in low
        or b"pwd" in low
        or b"basic" in low
        or b"sig" in low
    )


def named(text: str) -> list[Found]:
    """What follows `password:`, `api_key=`, `Bearer` and the like and has a digit in it."""
    found = []
    for match in _NAMED.finditer(text):
        start = match.start("value")
        # A mark may belong to the password; a full stop or a bracket belongs to the sentence.
        value = match["value"].rstrip(".)]}")
        if len(value) < 6 or not any(map(str.isdigit, value)):
            continue
        if len(value) < 8 and value.replace(".", "").isdigit():
            continue  # a number of something
        found.append(Found(start, start + len(value), "KEY", value))
    return found
