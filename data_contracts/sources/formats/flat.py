"""Columns of our own, for Parquet and CSV: a row is one piece of feedback with the interaction it points to.

The columns are those of `sources.base.schema()` without `origin` and `line`; an interaction nobody said anything of has
empty `feedback_*` columns. Nothing is lost but the difference between an empty and an absent text in CSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import Format, RawLine, Rendered, Row

_SERVED, _SAID = "interaction_", "feedback_"
_EMPTY = {"interaction_answer", "interaction_prompt_version"}
"""Columns in which an empty text is a value."""


def _matches(row: Row) -> bool:
    return "interaction_messages" in row


def _parse(row: Row) -> list[RawLine]:
    interaction: dict[str, Any] = {}
    feedback: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or (value == "" and name not in _EMPTY):
            continue
        if name.startswith(_SERVED):
            interaction[name.removeprefix(_SERVED)] = value
        elif name.startswith(_SAID):
            # CSV has texts only; every other number is read from its text by its type.
            thumb = name == "feedback_thumb" and value in ("1", "-1")
            feedback[name.removeprefix(_SAID)] = int(value) if thumb else value
        else:
            raise InputError("`<unknown key>`: no such column", expected="interaction_* and feedback_*")
    return [{"interaction": interaction, "feedback": [feedback] if feedback else []}]


def _render(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    served = {f"{_SERVED}{name}": value for name, value in interaction}
    served["interaction_messages"] = [message.model_dump() for message in interaction.messages]
    served["interaction_flags"] = list(interaction.flags)
    rows = [
        {**served, **{f"{_SAID}{name}": value for name, value in one if name not in ("salt", "interaction_id")}}
        for one in said
    ]
    return Rendered(rows or [served])


FLAT = Format("flat", _matches, _parse, _render, bare=True)
