"""The seam every source of feedback implements: Arrow record batches, each with a cursor. And its in-memory double.

A source is read with the cursor of the last batch that was committed, and goes on after it:

    for batch in source.read(cursor):
        write(batch.rows)          # and, in the same transaction where there is one,
        cursor = batch.cursor      # remember how far it got

**No late feedback is lost, none counts twice.** A cursor is never a time: what comes late (a file with an old date,
an assessment of an old trace, feedback committed before its interaction) would be behind it. It is what was *seen*: a
ledger of files with how far and which content, of assessment ids, or a commit number. A batch that was read but whose
cursor was not kept comes again; the ids of what it holds are derived from its content, so that it is known by then.
Delivered at least once, counted exactly once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from configs.errors import TidemillError
    from data_contracts.sources.lines import Line

Cursor = dict[str, Any]
"""How far a source was read: JSON, kept by the caller, understood only by the source that made it. No user text."""
BATCH_ROWS = 500
"""Rows a batch holds at least before it is passed on; a line with its feedback is never split."""


@dataclass(frozen=True)
class RowError:
    """One row of a source that cannot be used. Its text is never quoted: it may be personal.

    `message` may say what was found (a type, names of columns); `reason` is in our own words only.
    """

    origin: str
    """File, URI or table."""
    line: int
    """Line of a text file, row of a table, from 1; 0 = the origin as a whole."""
    message: str
    reason: str = "the row cannot be used"

    @classmethod
    def of(cls, origin: str, line: int, error: TidemillError) -> RowError:
        """The error of one row; where it is fit to leave the machine, `reason` is."""
        return cls(origin, line, str(error), error.message)

    def __str__(self) -> str:
        place = f"{self.origin}, line {self.line}" if self.line else self.origin
        return f"{place}: {self.message}"


@dataclass(frozen=True)
class Batch:
    """Some rows of a source, and how far it is read with them."""

    rows: pa.RecordBatch
    """Columns as in `schema()`; may be empty."""
    cursor: Cursor
    """Go on from here once `rows` are committed."""
    errors: tuple[RowError, ...] = ()
    """Rows between the last batch and the end of this one that cannot be used."""
    skipped: dict[str, int] = field(default_factory=dict)
    """What was left out on purpose, by reason."""


class Source(Protocol):
    """Somewhere feedback comes from."""

    @property
    def name(self) -> str:
        """Its name in reports and in the ledger of cursors; without passwords."""
        ...

    def read(self, cursor: Cursor | None = None) -> Iterator[Batch]:
        """Everything after `cursor` (None = from the beginning), in batches of bounded size.

        Raises:
            SourceError: it cannot be reached now.
            InputError: what is there is none of it.
        """
        ...


@dataclass(frozen=True)
class Defaults:
    """What a row gets that does not say it itself."""

    principal: str = "imported"
    scope: str = "user"
    source: str = "import"
    """Where the feedback comes from: a format's or a system's name."""
    trust_scope: bool = False
    """Whether a row may say itself that it is of scope `review`, which needs no corroboration."""


DEFAULTS = Defaults()


@functools.cache
def schema() -> pa.Schema:
    """The columns of every batch: one row is one piece of feedback with the interaction it points to.

    - `origin`, `line`: where the row was found, for messages.
    - `interaction_*`: the fields of `records.Interaction`. `interaction_id` is the origin's own id, or null; all rows
      of one interaction repeat the same values. `interaction_messages` is a list of `{role, content}`.
    - `feedback_*`: the fields of `records.Feedback`, without salt and interaction. All null: an interaction nobody said
      anything of.

    Times are microseconds in UTC, null = unknown. Texts are as they came: not redacted yet.
    """
    import pyarrow as pa

    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    message = pa.struct([pa.field("role", text, False), pa.field("content", text, False)])
    interaction = {
        "id": text, "created_at": time, "model": text, "principal": text, "conversation": text,
        "messages": pa.list_(message), "prompt_version": text, "answer": text, "arm": text, "version": text,
        "rollout_id": text, "route_revision": pa.int32(), "arm_share": pa.float64(), "tokens_in": pa.int32(),
        "tokens_out": pa.int32(), "latency_ms": pa.int32(), "ttft_ms": pa.int32(), "cost_microdollars": pa.int64(),
        "flags": pa.list_(text),
    }  # fmt: skip
    feedback = {
        "id": text, "kind": text, "created_at": time, "principal": text, "scope": text, "source": text,
        "thumb": pa.int8(), "rating": pa.int8(), "text": text, "rejected": text, "label": text,
    }  # fmt: skip
    return pa.schema(
        [
            ("origin", text),
            ("line", pa.int64()),
            *((f"interaction_{name}", kind) for name, kind in interaction.items()),
            *((f"feedback_{name}", kind) for name, kind in feedback.items()),
        ]
    )


@dataclass(frozen=True)
class MemorySource:
    """Lines held in memory; more may be appended to the list between two reads."""

    lines: Sequence[Line]
    name: str = "memory"
    batch_rows: int = BATCH_ROWS

    def read(self, cursor: Cursor | None = None) -> Iterator[Batch]:
        """The lines after those the cursor counts."""
        from data_contracts.sources.lines import to_batch

        start = int((cursor or {}).get("lines", 0))
        while start < len(self.lines):
            part = self.lines[start : start + self.batch_rows]
            rows = to_batch([(self.name, start + n, line) for n, line in enumerate(part, 1)])
            start += len(part)
            yield Batch(rows, {"lines": start})
