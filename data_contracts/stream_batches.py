"""The batches of a stream: their columns, which rows can be read at all, redaction, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from configs.errors import InputError
from data_contracts.contract_columns import not_utf8, without
from data_contracts.records import Message
from data_contracts.redaction import Redactor

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

UNREADABLE = "contract.unreadable"
"""Reason of rows without a field, with a message of nobody or nothing, or with text that is not UTF-8."""


def labelled_schema() -> pa.Schema:
    """Columns of the batches: the fields of `records.LabelledRow`; `created_at` is UTC in microseconds."""
    import pyarrow as pa

    message = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
    texts = ("id", "digest", "interaction_id", "kind", "principal", "scope")
    more = ("answer", "completion", "version", "source", "asked_by")
    return pa.schema(
        [
            *((name, pa.string()) for name in texts),
            ("created_at", pa.timestamp("us", "UTC")),
            ("messages", pa.list_(message)),
            *((name, pa.string()) for name in more),
        ]
    )


class LeftOut:
    """Writes down of every row that is left out why, and counts."""

    def __init__(self, out: Any, counts: dict[str, int]) -> None:
        self._out = out
        self._counts = counts

    def add(self, ids: pa.Array, reasons: Sequence[str]) -> None:
        """Take rows down, but for those with an empty reason."""
        import pyarrow as pa

        rows = pa.RecordBatch.from_pydict({"id": ids, "reason": reasons}, schema=left_out_schema())
        rows = rows.filter(pa.array([bool(reason) for reason in reasons], pa.bool_()))
        for reason in rows.column("reason").to_pylist():
            self._counts[reason] = self._counts.get(reason, 0) + 1
        if len(rows):
            self._out.write_batch(rows)


def left_out_schema() -> pa.Schema:
    """Columns of the file of rows left out."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("reason", pa.string())])


def only_readable(batch: pa.RecordBatch, out_of: LeftOut) -> pa.RecordBatch:
    """The rows that could be a `records.LabelledRow`; a field that is missing or no text can be neither cleaned nor
    judged.

    Raises:
        InputError: a column is missing.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = [name for name in labelled_schema().names if name not in batch.schema.names]
    if missing:
        raise InputError(
            "a batch lacks columns",
            where="stream_snapshot",
            expected=", ".join(labelled_schema().names),
            found="no " + ", ".join(missing),
        )
    good = np.ones(len(batch), dtype=bool)
    for column in batch.columns:
        good &= _readable(column)
    messages = batch.column("messages")
    said = pc.list_flatten(messages)
    fine = _readable(said)
    for name in ("role", "content"):
        fine &= _readable(pc.struct_field(said, name))
    roles = pa.array(get_args(Message.model_fields["role"].annotation))
    fine &= pc.is_in(pc.struct_field(said, "role").cast(pa.binary()), value_set=roles.cast(pa.binary())).to_numpy(
        zero_copy_only=False
    )
    good[pc.list_parent_indices(messages).to_numpy()[~fine]] = False
    if good.all():
        return batch
    refused = batch.column("id").filter(pa.array(~good))
    out_of.add(without(refused, not_utf8(refused)), [UNREADABLE] * len(refused))
    return batch.filter(pa.array(good))


def _readable(column: pa.Array) -> np.ndarray:
    """(n,) True where there is a value, and text is UTF-8."""
    found: np.ndarray = column.is_valid().to_numpy(zero_copy_only=False).copy()
    found[not_utf8(column)] = False
    return found


def redact_batch(batch: pa.RecordBatch, redactor: Redactor) -> pa.RecordBatch:
    """A batch with the same columns, its messages, answer and completion redacted, one conversation a row."""
    import pyarrow as pa

    names = batch.schema.names
    texts = {name: batch.column(name).to_pylist() for name in ("messages", "answer", "completion")}
    changed = False
    for place, messages in enumerate(texts["messages"]):
        session = redactor.session()
        said = [{"role": m["role"], "content": m["content"] or ""} for m in messages or ()]
        clean, counts = redactor.redact_messages(said, session)
        found = bool(counts)
        for name in ("answer", "completion"):
            text = texts[name][place]
            if text:
                texts[name][place], more = session.redact(text)
                found = found or bool(more)
        if found:
            texts["messages"][place] = clean
            changed = True
    if not changed:
        return batch
    arrays = [
        pa.array(texts[name], batch.schema.field(name).type) if name in texts else batch.column(name) for name in names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def contract_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns a contract may name, those of the conversation derived."""
    import pyarrow as pa

    from data_contracts.contract_columns import COLUMNS, answer_columns, arrow_type, conversation_columns

    plain = ("id", "interaction_id", "kind", "principal", "scope", "source", "version", "created_at")
    columns: dict[str, Any] = {name: batch.column(name).cast(arrow_type(COLUMNS[name])) for name in plain}
    messages, answers, completions = (batch.column(n).to_pylist() for n in ("messages", "answer", "completion"))
    derived = [
        {**conversation_columns([(m["role"], m["content"]) for m in said]), **answer_columns(answer, completion)}
        for said, answer, completion in zip(messages, answers, completions, strict=True)
    ]
    for name in {**conversation_columns(()), **answer_columns("", "")}:
        columns[name] = pa.array([row[name] for row in derived], arrow_type(COLUMNS[name]))
    return pa.RecordBatch.from_pydict(columns)
