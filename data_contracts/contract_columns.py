"""The columns a contract may name, and rows as Arrow batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_contracts.overlap import answer_key
from data_contracts.records import Feedback, Incident, LabelledRow, Message

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS: dict[str, str] = {
    "id": "string",
    "interaction_id": "string",
    "kind": "string",
    "principal": "string",
    "scope": "string",
    "source": "string",
    "version": "string",
    "created_at": "timestamp",
    "prompt": "string",
    "conversation": "string",
    "answer": "string",
    "completion": "string",
    "last_role": "string",
    "turns": "integer",
    "completion_words": "integer",
    "repeats_answer": "boolean",
    "thumb": "integer",
    "rating": "integer",
    "label": "string",
    "title": "string",
    "severity": "string",
    "paraphrases": "string",
    "paraphrase_count": "integer",
}
"""Columns a rule may name, with their ODCS logical types. Derived are: `prompt`, the last user message;
`conversation`, what all messages say, each on lines of its own; `last_role`, the last message's role; `turns`, the
number of messages; `completion_words`; `repeats_answer`, whether the completion says the same as the rejected answer
(case, spaces aside); `paraphrases`, an incident's, one a line."""

ROWS_PER_BATCH = 20_000


def arrow_type(logical: str) -> pa.DataType:
    """The Arrow type of an ODCS logical type."""
    import pyarrow as pa

    types = {
        "string": pa.large_string(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
    return types[logical]


def _messages(messages: Sequence[Message]) -> dict[str, Any]:
    return conversation_columns([(m.role, m.content) for m in messages])


def conversation_columns(said: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What is derived of a conversation's (role, text) pairs."""
    return {
        "prompt": next((text for role, text in reversed(said) if role == "user"), ""),
        "conversation": "\n".join(text for _, text in said),
        "last_role": said[-1][0] if said else None,
        "turns": len(said),
    }


def answer_columns(answer: str, completion: str) -> dict[str, Any]:
    """The rejected answer, the wanted one, and what is derived of both."""
    return {
        "answer": answer,
        "completion": completion,
        "completion_words": len(completion.split()),
        "repeats_answer": answer_key(completion) == answer_key(answer),
    }


def labelled_columns(row: LabelledRow) -> dict[str, Any]:
    """A correction or a preference; a preference's `answer` is the rejected one."""
    plain = {
        name: getattr(row, name)
        for name in ("id", "interaction_id", "principal", "scope", "source", "version", "created_at")
    }
    return {**plain, "kind": row.kind.value, **_messages(row.messages), **answer_columns(row.answer, row.completion)}


def thumb_columns(row: LabelledRow) -> dict[str, Any]:
    """A thumb with its request; `answer` and `completion` are the answer it is about."""
    return {**labelled_columns(row), "thumb": row.thumb}


def feedback_columns(row: Feedback) -> dict[str, Any]:
    """Feedback without its interaction: a thumb or a rating."""
    names = ("id", "interaction_id", "principal", "scope", "source", "created_at", "thumb", "rating", "label")
    return {**{name: getattr(row, name) for name in names}, "kind": row.kind.value}


def incident_columns(row: Incident) -> dict[str, Any]:
    """An incident: the completion is the reviewed answer, the principal who opened it, all messages are checked."""
    return {
        "id": row.id,
        "interaction_id": row.interaction_id,
        "kind": "incident",
        "principal": row.opened_by,
        "created_at": row.opened_at,
        "title": row.title,
        "severity": row.severity,
        "paraphrases": "\n".join(row.paraphrases),
        "paraphrase_count": len(row.paraphrases),
        **_messages(row.messages),
        **answer_columns(row.answer, row.required),
    }


def encodes(text: str) -> bool:
    """False where a text holds a lone surrogate: it can be neither stored nor digested."""
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def batches_of(
    rows: Sequence[Any], columns: Callable[[Any], Mapping[str, Any]], bad_text: list[int]
) -> Iterator[pa.RecordBatch]:
    """Rows as Arrow batches of at most 20,000; a row with a text that cannot be encoded becomes all null.

    Args:
        rows: of one record.
        columns: `labelled_columns` and its like.
        bad_text: the places of rows that hold such a text are added here.
    """
    import pyarrow as pa

    for start in range(0, len(rows), ROWS_PER_BATCH):
        found = [dict(columns(row)) for row in rows[start : start + ROWS_PER_BATCH]]
        for place, row in enumerate(found):
            if not all(encodes(value) for value in row.values() if isinstance(value, str)):
                bad_text.append(start + place)
                found[place] = dict.fromkeys(row)
        arrays = {name: pa.array([row[name] for row in found], arrow_type(COLUMNS[name])) for name in found[0]}
        yield pa.RecordBatch.from_pydict(arrays)


# --- columns of text ---------------------------------------------------------------------------


def not_utf8(column: Any) -> Any:
    """Places of values that are no UTF-8: neither Arrow nor Parquet checks what a file says is text."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return []
    try:
        column.validate(full=True)
        return []
    except pa.ArrowInvalid:
        binary = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
        return [i for i, value in enumerate(binary.to_pylist()) if value is not None and not _decodes(value)]


def only(column: Any, rows: Any) -> Any:
    """The column with nulls in the other rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return column if rows.all() else pc.if_else(pa.array(rows), column, pa.scalar(None, column.type))


def _decodes(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def without(column: Any, bad: Sequence[int]) -> Any:
    """The column with nulls in these places."""
    import pyarrow as pa

    binary = column.cast(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
    drop = set(bad)
    return pa.array([None if i in drop else v for i, v in enumerate(binary.to_pylist())], binary.type).cast(column.type)
