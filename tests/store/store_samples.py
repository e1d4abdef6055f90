"""Short builders of records for the store's tests."""

from __future__ import annotations

from typing import Any

from data_contracts.ids import new_id
from data_contracts.records import Arm, Feedback, Interaction, Message, Rollout, utc_now

MODEL = "support-bot"


def interaction(id: str, **fields: Any) -> Interaction:
    """One served request."""
    defaults: dict[str, Any] = {
        "created_at": utc_now(),
        "model": MODEL,
        "principal": "ann",
        "conversation": "c1",
        "messages": (Message(role="system", content="Be kind."), Message(role="user", content=f"What is {id}?")),
        "answer": "I do not know.",
    }
    return Interaction(id=id, **{**defaults, **fields})


def correction(id: str, interaction_id: str, text: str | None = "It is a thing.", **fields: Any) -> Feedback:
    """One correction of an interaction."""
    defaults: dict[str, Any] = {"kind": "correction", "created_at": utc_now(), "principal": "ann"}
    return Feedback(id=id, interaction_id=interaction_id, text=text, **{**defaults, **fields})


def rollout(**fields: Any) -> Rollout:
    """A pending rollout of version 1 over the base."""
    defaults: dict[str, Any] = {
        "id": new_id(),
        "model": MODEL,
        "candidate": Arm(version=f"{MODEL}@v1"),
        "previous": Arm(),
        "state": "pending",
        "created_at": utc_now(),
        "salt": "s",
    }
    return Rollout(**{**defaults, **fields})
