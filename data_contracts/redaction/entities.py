"""What is looked for, and what stands in its place."""

from __future__ import annotations

import re
from typing import NamedTuple

ENTITIES = (
    "CREDENTIALS",
    "KEY",
    "EMAIL",
    "IBAN",
    "CARD",
    "NATIONAL_ID",
    "IP",
    "PHONE",
    "PERSON",
    "ADDRESS",
)
"""PERSON and ADDRESS come from a named-entity backend only; all others need nothing but the standard library."""
STRUCTURED = ENTITIES[:-2]
PLACEHOLDER = re.compile(r"<(" + "|".join(ENTITIES) + r")_(\d{1,6}|[0-9a-f]{16})>")
"""`<EMAIL_1>`: first of its conversation; `<EMAIL_3f9a0c51d2e4b768>`: a keyed pseudonym, 64 bits of an HMAC."""


class Found(NamedTuple):
    """One value in a text: characters `start:end`, and its normal form (`value`), by which equal values are known."""

    start: int
    end: int
    entity: str
    value: str


def contains_placeholder(text: str) -> bool:
    """True if the text holds a placeholder of a redacted value."""
    return "<" in text and PLACEHOLDER.search(text) is not None


def placeholder_entities(text: str) -> set[str]:
    """The entities whose placeholders the text holds."""
    return {found[1] for found in PLACEHOLDER.finditer(text)} if "<" in text else set()
