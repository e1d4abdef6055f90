"""Our own store as a source.

The cursor is a commit number. A pair of interaction and feedback has the number of the later one, so feedback that was
committed before its interaction comes with it, and none is behind the cursor when it becomes complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_contracts.records import Feedback, Interaction, LabelledRow
from data_contracts.sources.base import BATCH_ROWS, Batch, Cursor
from data_contracts.sources.lines import FeedbackLine, InteractionLine, Line, to_batch
from store import feedback, joined
from store.engine import Store
from store.interactions import latest_seq


@dataclass(frozen=True)
class StoreSource:
    """What was asked and said through the gateway, up to a commit (all of it by default)."""

    store: Store
    model: str = ""
    upto_seq: int | None = None
    batch_rows: int = BATCH_ROWS

    @property
    def name(self) -> str:
        return f"store:{self.model}"

    def read(self, cursor: Cursor | None = None) -> Iterator[Batch]:
        """What became complete after the cursor, in order of commits.

        An interaction comes alone when it is committed, and again with each feedback on it; all its rows have its id.
        """
        after = int((cursor or {}).get("seq", 0))
        with self.store.read() as conn:
            upto = latest_seq(conn) if self.upto_seq is None else self.upto_seq
        while after < upto:
            with self.store.read() as conn:
                first = joined.next_number(conn, self.model, after)
                if first is None or first > upto:
                    break
                end = min(first + self.batch_rows - 1, upto)
                found = joined.between(conn, self.model, first - 1, end)
            lines = [(self.name, at, as_line(served, [said] if said else [])) for at, served, said in found]
            after = end
            yield Batch(to_batch(lines), {"seq": after})
        if after < upto:
            yield Batch(to_batch([]), {"seq": upto})

    def rows(self, model: str) -> Iterator[LabelledRow]:
        """Joined corrections and preferences in order of commits."""
        with self.store.read() as conn:
            found = feedback.labelled(conn, model, upto_seq=self.upto_seq)
        yield from found


def as_line(interaction: Interaction, said: list[Feedback]) -> Line:
    """Records of ours as a line, unchecked: they were checked when they came in."""
    served = InteractionLine.model_construct(**dict(interaction))
    feedback_lines = (
        FeedbackLine.model_construct(**{name: value for name, value in one if name != "salt"}) for one in said
    )
    return Line.model_construct(interaction=served, feedback=tuple(feedback_lines))
