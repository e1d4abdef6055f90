"""All structured values of a text, none overlapping.

A cheap count of the text's bytes decides which detectors run at all: most messages have no @, no long word and fewer
digits than a telephone number, and cost two passes in C. Time is linear: every expression is bounded from where it
starts.
"""

from __future__ import annotations

from collections.abc import Iterable

from data_contracts.redaction import disguise, keys, network, numbers
from data_contracts.redaction.entities import Found

_DIGITS = b"0123456789"
_CONTROL = bytes(c for c in range(128) if (c < 32 and c not in b"\t\n\v\f\r") or c == 127)
_DULL = bytes(c for c in range(256) if c not in _DIGITS and c not in _CONTROL)
"""What says nothing about a text: all bytes but digits and hidden control characters."""


def find(text: str) -> list[Found]:
    """Every value in the text by place, whatever script or hidden characters it is written in."""
    raw = text.encode("ascii", "ignore")
    left = raw.translate(None, _DULL)
    if (not left or left.isdigit()) and (len(raw) == len(text) or disguise.is_plain(text)):
        return _scan(text, raw, len(left))
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
    return _scan(view, raw, len(raw.translate(None, _DULL)))


def _scan(text: str, raw: bytes, digits: int) -> list[Found]:
    """The values of a plain text.

    Args:
        raw: its ASCII characters.
        digits: how many of them are digits or controls.
    """
    layers: list[list[Found]] = []
    low = raw.lower()
    if b"://" in raw and b"@" in raw:
        layers.append(network.credentials(text))
    if b"-----BEGIN" in raw:
        layers.append(keys.pem(text))
    if digits and keys.may_be_named(low):
        layers.append(keys.named(text))
    if len(raw) >= keys.LONG and max(map(len, raw.split()), default=0) >= keys.LONG:
        layers.append(keys.tokens(text))
    if b"@" in raw:
        layers.append(network.emails(text))
    if network.may_be_spoken(low):
        layers.append(network.spoken_emails(text))
    if digits and (b"::" in raw or raw.count(b":") >= 6):
        layers.append(network.ipv6(text))
    if digits >= 4:
        layers += numbers.scan(text)
    found = [layer for layer in layers if layer]
    if not found:
        return []
    return merge(len(text), *found) if len(found) > 1 or len(found[0]) > 1 else found[0]
