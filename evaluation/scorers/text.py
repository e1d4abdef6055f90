"""Texts made comparable."""

from __future__ import annotations

import unicodedata

_EDGE = " \t\n\r\"'`*_“”‘’«»()[]{}.,;:!?"


def normalise(text: str) -> str:
    """NFKC, case-folded, typographic quotes plain, runs of white space one space, edge punctuation gone."""
    text = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'").casefold()
    return " ".join(text.split()).strip(_EDGE)
