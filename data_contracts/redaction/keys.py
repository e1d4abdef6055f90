"""Keys and tokens that nobody names: known prefixes, private keys in PEM blocks, high entropy."""

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
    r"|AIza[0-9A-Za-z_\-]{30,45}|GOCSPX-[0-9A-Za-z_\-]{20,40}"
    r"|ya29\.[0-9A-Za-z_\-]{20,512}"
    r"|hf_[A-Za-z0-9]{20,64}"
    r"|npm_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_\-]{40,255}|dckr_pat_[A-Za-z0-9_\-]{20,64}"
    r"|do[opr]_v1_[0-9a-f]{40,80}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{24,64}"
    r"|sq0[a-z]{3}-[0-9A-Za-z_\-]{20,64}|EAAA[0-9A-Za-z_\-]{50,80}"
    r"|(?:gsk|r8|pplx|nvapi|lin_api|sntrys|figd|glsa|dapi|PMAK|NRAK|ATATT|ATCTT)[_\-]?[A-Za-z0-9_\-=]{24,255}"
    r"|AGE-SECRET-KEY-1[0-9A-Z]{40,70}|hv[sb]\.[A-Za-z0-9_\-]{20,255}"
    r"|(?:xai|tvly|sbp|ntn|pul|phc|phx|mlsn|xkeysib|tgp|jina|glc|sntryu|FLWSECK|ATBB|BBDC|CFPAT)[_\-.]"
    r"(?=[A-Za-z_\-]{0,40}[0-9])[A-Za-z0-9_\-]{28,255}"
    r"|pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_\-.]{28,64}|dp\.(?:pt|st|ct|sa|scim)\.[A-Za-z0-9_\-.]{30,64}"
    r"|dt0[a-z]\d{2}\.[A-Z0-9]{20,30}\.[A-Z0-9]{40,80}|ops_eyJ[A-Za-z0-9_\-]{30,4096}|fm2_[A-Za-z0-9+/=]{40,512}"
    r"|[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_\-=]{40,80}|key-[0-9a-f]{32}|[0-9a-f]{32}-us\d{1,2}(?![A-Za-z0-9])"
    r"|SK[0-9a-f]{32}(?![A-Za-z0-9])|LTAI[A-Za-z0-9]{16,30}|EAA[A-Za-z0-9]{60,255}"
    r"|[MNO](?=[A-Za-z_\-]{0,40}[0-9])[A-Za-z0-9_\-]{23,28}\.[A-Za-z0-9_\-]{6}\.[A-Za-z0-9_\-]{27,40}"  # Discord
    r"|T[A-Z0-9]{7,12}/B[A-Z0-9]{7,12}/[A-Za-z0-9]{20,32}"  # Slack's incoming hooks
    r"|\d{8,10}:AA[0-9A-Za-z_\-]{32,36}"  # Telegram
    r"|SG\.[A-Za-z0-9_\-]{16,64}\.[A-Za-z0-9_\-]{16,64}"
    r"|eyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]{4,4096}(?:\.[A-Za-z0-9_\-]{0,1024})?"  # JWT
    r")"
)
_RANDOM = re.compile(r"(?<![A-Za-z0-9_\-])[A-Za-z0-9_\-]{32,512}(?![A-Za-z0-9_\-])")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_.\-:])[A-Za-z0-9+/]{40,512}={0,2}(?![A-Za-z0-9+/=_.\-])")
_UUID_LIKE = re.compile(r"(?:[a-z]{1,12}-)?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}(?:-[0-9a-f]{1,20})?", re.I)
_HEX = re.compile(r"[0-9a-f_\-]+", re.I)
_DIGEST = re.compile(
    r"(?<![A-Za-z0-9])(?:sha(?:1|224|256|384|512)|md5|blake[23][bs]?)[\-:=][A-Za-z0-9+/_\-]{16,128}={0,2}"
)
"""What somebody calls a digest, as in `integrity="sha384-..."`."""


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
            if spans:
                digests = [m.span() for m in _DIGEST.finditer(text, start, end)]
                spans = [(a, b) for a, b in spans if not any(low <= a and b <= high for low, high in digests)]
        found += [Found(a, b, "KEY", text[a:b]) for a, b in sorted(spans)]
    return found
