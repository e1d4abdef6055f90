"""Tidemill's own lines: an interaction with all that was said of it; nothing is lost.

A line is `{"interaction": {...}, "feedback": [{...}, ...]}`, or an interaction alone. An interaction needs `messages`
and `answer`; a piece of feedback needs `kind` and what its kind says (`text`, `thumb`, ...).
"""

from __future__ import annotations

from collections.abc import Sequence

from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import Format, RawLine, Rendered, Row


def _matches(row: Row) -> bool:
    return "interaction" in row or ("messages" in row and "answer" in row)


def _parse(row: Row) -> list[RawLine]:
    return [dict(row) if "interaction" in row else {"interaction": row}]


def _render(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    # Salts stay in the store: without them an erased row cannot be recognised.
    feedback = [one.model_dump(mode="json", exclude={"salt"}, exclude_none=True) for one in said]
    return Rendered([{"interaction": interaction.model_dump(mode="json"), "feedback": feedback}])


NATIVE = Format("jsonl", _matches, _parse, _render, bare=True)
