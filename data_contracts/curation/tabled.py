"""Curation of Arrow batches: a million rows as columns, texts read by place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.curation import CurationSection
from configs.errors import InputError
from data_contracts.curation.pipeline import Beside, decide, open_desk
from data_contracts.curation.results import TARGET, Embed, Person, Verdicts
from data_contracts.records import FeedbackKind
from data_contracts.redaction import RedactionPolicy

COLUMNS = ("id", "principal", "interaction_id", "created_at", "messages", "completion")
"""Needed; `scope` (else `user`), `asked_by` (else unknown), and `kind` with `answer` (else nothing is a preference) may
be there. `messages` is a list of structs with `role` and `content`, `created_at` a timestamp."""


class ArrowRows:
    """A table's rows in time order; the texts stay where they are (a memory-mapped file, for example)."""

    def __init__(self, table: pa.Table) -> None:
        missing = [name for name in COLUMNS if name not in table.column_names]
        if missing:
            raise InputError(
                "the table lacks columns that curation needs",
                where="curate_table",
                expected=", ".join(COLUMNS),
                found="no " + ", ".join(missing),
            )
        self._table = table
        when = table.column("created_at").cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        order = pc.sort_indices(
            pa.table({"when": when, "id": table.column("id")}), sort_keys=[("when", "ascending"), ("id", "ascending")]
        )
        self.order = order.to_numpy().astype(np.int64)
        self._when = when.to_numpy()[self.order]
        self._ids = table.column("id").take(order).to_pylist()
        self._messages, self._completion = table.column("messages"), table.column("completion")
        self._answer: Any = table.column("answer") if {"kind", "answer"} <= set(table.column_names) else None
        self._preference = np.zeros(len(self.order), dtype=bool)
        if self._answer is not None:
            kinds = pc.fill_null(pc.equal(table.column("kind"), FeedbackKind.PREFERENCE.value), False)
            self._preference = kinds.to_numpy()[self.order]

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> Sequence[str]:
        """Row ids."""
        return self._ids

    def values(self, column: str) -> Iterable[Any]:
        """One column in time order; what is missing is as if nobody had said it."""
        if column not in self._table.column_names:
            return iter(["user" if column == "scope" else ""] * len(self))
        return iter(self._table.column(column).take(pa.array(self.order)).to_pylist())

    def times(self) -> np.ndarray:
        """int64 (n,)."""
        return self._when

    def messages(self, place: int) -> Sequence[tuple[str, str]]:
        """(role, text) of the conversation."""
        found = self._messages[int(self.order[place])].as_py() or ()
        return [(message["role"], message["content"] or "") for message in found]

    def completion(self, place: int) -> str:
        """The correction."""
        return self._completion[int(self.order[place])].as_py() or ""

    def rejected(self, place: int) -> str | None:
        """A preference's other answer."""
        if not self._preference[place]:
            return None
        text: str = self._answer[int(self.order[place])].as_py() or ""
        return text if text.strip() else None


def curate_table(
    table: pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch],
    released: Set[str],
    config: CurationSection,
    eval_prompts: Iterable[str],
    *,
    dropped: Set[str] = frozenset(),
    people: Mapping[str, Person] | None = None,
    suspects: Set[str] = frozenset(),
    earlier: Mapping[str, str] | None = None,
    embed: Embed | None = None,
    now: datetime | None = None,
    redaction: RedactionPolicy | None = None,
    details: bool = False,
) -> Verdicts:
    """Like `curate`, for rows that were redacted already and come as Arrow.

    Args:
        table: rows with COLUMNS; batches are gathered first (the texts must be at hand until the last rule).
        released: see `curate`, as are all others.
        config: the policy.
        eval_prompts: protected prompts.
        dropped: ids.
        people: by principal.
        suspects: ids.
        earlier: row id -> split.
        embed: sentence embeddings.
        redaction: the policy the texts were redacted by; None masks everything.
        now: when ages are taken.
        details: also say why, row by row (costs some hundred bytes for each row left out).

    Raises:
        InputError: a column is missing.
    """
    if not isinstance(table, pa.Table):
        batches = list(table)
        if not batches:
            return Verdicts(np.zeros(0, dtype=np.uint8))
        table = pa.Table.from_batches(batches)
    rows = ArrowRows(table)
    beside = Beside(eval_prompts, dropped, people, suspects, earlier, embed, now, redaction or RedactionPolicy())
    desk = open_desk(rows, released, config, beside, details=details)
    decide(desk)
    found = np.where(desk.code > 0, desk.code + 1, np.where(desk.target, TARGET, 0)).astype(np.uint8)
    codes = np.empty(len(found), dtype=np.uint8)
    codes[rows.order] = found
    return Verdicts(codes, {int(rows.order[place]): why for place, why in desk.details.items()})
