"""The text as its reader sees it: other scripts' digits, full-width letters, odd spaces, hidden characters.

Detectors look at a plain view of a text, values are replaced in the text itself: what is not personal keeps every
character, an emoji its joiners, a quotation its full-width letters.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
_SPELT = re.compile(r"&(?:nbsp|commat|period|colon|hyphen|#\d{2,4}|#[xX][0-9a-fA-F]{2,3});|(?<=\d)\[(?:\.|dot)\](?=\d)")
_NAMES = {"nbsp": " ", "commat": "@", "period": ".", "colon": ":", "hyphen": "-"}
_KNOWN_LIMIT = 20_000
"""Most characters whose class is remembered: a text of all of Unicode must not stay in memory."""
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_PLAIN = {chr(c) for c in range(32, 127)} | set("\t\n\v\f\r")


def shown(char: str) -> str | None:
    """What a reader sees of one character: "" nothing (hidden), other characters, or None: itself."""
    if char in _FILLERS:
        return ""
    category = unicodedata.category(char)
    if category in ("Cf", "Mn", "Me") or (category == "Cc" and char not in "\t\n\v\f\r\x85"):
        return ""
    if category == "Nd":
        return None if char.isascii() else str(unicodedata.decimal(char))
    if category == "Zs":
        return None if char == " " else " "
    if category == "Pd" or char == "\u2212":
        return None if char == "-" else "-"
    normal = unicodedata.normalize("NFKC", char)
    if normal == char or len(normal) > 4 or not normal.isascii() or char == "\u2026":
        return normal if normal != char and len(normal) == 1 else None
    return normal if normal.isprintable() else None


class _Table(dict[int, "str | int"]):
    """A translation table that learns characters as they come."""

    def __init__(self, *, join: bool) -> None:
        super().__init__()
        self._join = join

    def __missing__(self, code: int) -> str | int:
        seen = shown(chr(code))
        # Without `join` one character stays one character, so places in view and text are the same.
        value = code if seen is None or (not self._join and len(seen) != 1) else seen
        if len(self) < _KNOWN_LIMIT:
            self[code] = value
        return value


_JOINED, _KEPT = _Table(join=True), _Table(join=False)


def spelt(raw: bytes) -> bool:
    """True if a text's ASCII may hold a character that is spelt out: `&#64;`, `10[.]0[.]0[.]1`."""
    return b"&" in raw or (b"[" in raw and (b"[.]" in raw or b"[dot]" in raw))


def unspelt(text: str) -> str:
    """The text at its length: HTML's entities and bracketed dots become one character and hidden ones behind it."""
    return _SPELT.sub(lambda match: _unspelt(match[0]).ljust(len(match[0]), "\u200b"), text)


def _unspelt(sign: str) -> str:
    if sign[0] != "&":
        return "."
    if sign[1] != "#":
        return _NAMES[sign[1:-1]]
    return chr(int(sign[3:-1], 16) if sign[2] in "xX" else int(sign[2:-1]))


def is_plain(text: str) -> bool:
    """True if a text without control characters is what it seems: no character of it has another, plainer form."""
    foreign = _FOREIGN.findall(text)
    if _PLAIN.issuperset(foreign):
        return True
    for char in set(foreign) - _PLAIN:
        if shown(char) is not None:
            return False
        if len(_PLAIN) < _KNOWN_LIMIT:
            _PLAIN.add(char)
    return True


def views(text: str) -> tuple[str, str]:
    """The text with hidden characters taken out, and with them left in; both with plain digits, letters and spaces."""
    odd = [char for char in set(text) - _PLAIN if shown(char) is not None]
    if len(odd) > 6:
        return text.translate(_JOINED), text.translate(_KEPT)
    joined = kept = text
    for char in odd:
        seen = shown(char) or ""
        joined = joined.replace(char, seen)
        if len(seen) == 1:
            kept = kept.replace(char, seen)
    return joined, kept


def places(text: str) -> list[int]:
    """For each place in the joined view its place in the text; one more entry for the end."""
    widths = [1 if isinstance(seen, int) else len(seen) for seen in map(_JOINED.__getitem__, map(ord, text))]
    out = [0] * (sum(widths) + 1)
    for place, (width, end) in enumerate(zip(widths, accumulate(widths), strict=True)):
        for at in range(end - width, end):
            out[at] = place
    out[-1] = len(text)
    return out
