"""Texts made comparable."""

from __future__ import annotations

import unicodedata

_EDGE = " \t\n\r\"'`*_“”‘’«»()[]{}.,;:!?"


def empty_in_effect(*references: str) -> list[str]:
    """A problem if nothing is left of a reference after `normalise`."""
    gone = [reference for reference in references if not normalise(reference)]
    return [f"nothing is left of the reference {gone[0]!r} without punctuation at its edges"] if gone else []


def normalise(text: str) -> str:
    """NFKC, case-folded, typographic quotes plain, runs of white space one space, edge punctuation gone."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'").casefold()
    return " ".join(text.split()).strip(_EDGE)
