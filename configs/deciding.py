"""Which settings of a training decide what adapter comes out, and which only how it is made."""

from __future__ import annotations

from typing import Any

from configs.schema import TrainingSection

HOW = {"distributed", "checkpoint_steps", "checkpoint_minutes"}
"""Who does the work and how often it is saved: another value in a resumed run must not throw away what it has."""


def deciding(config: TrainingSection) -> dict[str, Any]:
    """The section as plain data, for a digest, without what decides nothing about the adapter.

    A budget of privacy is no part of it either: it says whether a run may start, not what comes of it.
    """
    found = config.model_dump(mode="json", exclude=HOW)
    if found.get("privacy"):
        found["privacy"].pop("total_epsilon")
    return found
