"""Rows for the tests of this folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from data_contracts.digests import digest
from data_contracts.records import FeedbackKind, LabelledRow, Message

START = datetime(2026, 1, 5, 9, tzinfo=UTC)


def labelled(n: int = 0, **changes: Any) -> LabelledRow:
    """A well-formed correction; `prompt` and any field can be changed."""
    prompt = changes.pop("prompt", f"How long may I keep item number {n} before I return it?")
    data: dict[str, Any] = {
        "id": f"f{n}",
        "digest": digest(["row", n]),
        "interaction_id": f"i{n}",
        "kind": FeedbackKind.CORRECTION,
        "principal": f"user-{n}",
        "created_at": START + timedelta(minutes=n),
        "messages": (Message(role="user", content=prompt),),
        "answer": "I do not know.",
        "completion": "You can return goods within 45 days.",
    }
    return LabelledRow(**{**data, **changes})
