"""All structured values of a text, none overlapping.

A cheap count of the text's bytes decides which detectors run at all: most messages have no @, no long word and fewer
digits than a telephone number, and cost two passes in C. Time is linear: every expression is bounded from where it
starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from data_contracts.redaction import disguise, keys, named, network, numbers
from data_contracts.redaction.entities import Found

_SHAPE = bytes(
    ord("0") if chr(c).isdigit()
    else c if chr(c) in " .,:;/()-\t\n\r\v\f[]{}<>"
    else 1 if c < 32 or c == 127
    else ord("x")
    for c in range(256)
)  # fmt: skip
"""Digits to 0, what separates to itself, hidden control characters to 1, everything else to x."""
_WORDS = bytes(32 if c in b" \t\n\r\v\f" else ord("x") for c in range(256))
_LONG_WORD = b"x" * keys.LONG
_BETWEEN = b" .-/()\t"
"""What may stand inside a number."""
_DOTTED = re.compile(rb"0\.0{1,3}\.0{1,3}\.0")


def find(text: str) -> list[Found]:
    """Every value in the text by place, whatever script or hidden characters it is written in."""
    raw = text.encode("ascii", "ignore")
    if disguise.spelt(raw):
        text = disguise.unspelt(text)
        raw = text.encode("ascii", "ignore")
    shape = raw.translate(_SHAPE)
    if b"\1" not in shape and (len(raw) == len(text) or disguise.is_plain(text)):
        return _scan(text, raw, shape)
    joined, kept = disguise.views(text)
    found = _scan_view(joined)
    if found and joined != kept:
        place = disguise.places(text)
        found = [hit._replace(start=place[hit.start], end=place[hit.end - 1] + 1) for hit in found]
    if joined != kept:
        # A hidden character may also stand where a space would: look at the text with them left in, too.
        found = merge(len(text), found, _scan_view(kept))
    return found


def merge(length: int, *layers: Iterable[Found]) -> list[Found]:
    """The values of all layers by place; of two that overlap the one of the earlier layer."""
    taken = bytearray(length)
    out = []
    for layer in layers:
        for hit in layer:
            if not any(taken[hit.start : hit.end]):
                taken[hit.start : hit.end] = b"\1" * (hit.end - hit.start)
                out.append(hit)
    return sorted(out)


def _scan_view(view: str) -> list[Found]:
    raw = view.encode("ascii", "ignore")
    return _scan(view, raw, raw.translate(_SHAPE))


def _scan(text: str, raw: bytes, shape: bytes) -> list[Found]:
    """The values of a plain text.

    Args:
        raw: its ASCII characters.
        shape: what kind each of them is.
    """
    layers: list[list[Found]] = []
    low, at, digits = raw.lower(), b"@" in raw, b"0" in shape
    if at and b"://" in raw:
        layers.append(network.credentials(text))
    if b"-----begin" in low:
        layers.append(keys.pem(text))
    mixed = digits and (b"x0" in shape)
    if digits and (mixed or _may_hold_a_secret(shape)) and named.may_be_named(low, text):
        layers.append(named.named(text))
    if _LONG_WORD in raw.translate(_WORDS):
        layers.append(keys.tokens(text))
    if at:
        layers.append(network.emails(text))
    if network.may_be_spoken(low):
        layers.append(network.spoken_emails(text))
    colons = shape.count(b":") if digits else 0
    if colons > 1 and (colons >= 6 or b"::" in shape):
        layers.append(network.ipv6(text))
    if mixed or (digits and _may_hold_a_number(shape)):
        layers += numbers.scan(text)
    found = [layer for layer in layers if layer]
    if not found:
        return []
    return merge(len(text), *found) if len(found) > 1 or len(found[0]) > 1 else found[0]


def _may_hold_a_secret(shape: bytes) -> bool:
    """True if a letter follows a digit, a digit a dash, or eight digits stand together, as in a password."""
    return b"0x" in shape or b"-0" in shape or b"00000000" in shape


def _may_hold_a_number(shape: bytes) -> bool:
    """True if six digits stand together but for what numbers are grouped by, or 0.0.0.0."""
    if b"000000" in shape.translate(None, _BETWEEN):
        return True
    return b"0.0" in shape and _DOTTED.search(shape) is not None
