"""The text as its reader sees it: other scripts' digits, full-width letters, odd spaces, hidden characters.

Detectors look at a plain view of a text, values are replaced in the text itself: what is not personal keeps every
character, an emoji its joiners, a quotation its full-width letters.
"""

from __future__ import annotations

import unicodedata
from itertools import accumulate

_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
_KNOWN_LIMIT = 20_000
"""Most characters whose class is remembered: a text of all of Unicode must not stay in memory."""
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


def is_plain(text: str) -> bool:
    """True if the text is what it seems: no character of it has another, plainer form."""
    if _PLAIN.issuperset(text):
        return True
    if text.isascii():
        return False
    for char in set(text) - _PLAIN:
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
