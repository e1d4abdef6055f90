"""Our own store as a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_contracts.records import LabelledRow
from store import feedback
from store.engine import Store


@dataclass(frozen=True)
class StoreSource:
    """What people said through the gateway, up to a commit (all of it by default)."""

    store: Store
    upto_seq: int | None = None

    def rows(self, model: str) -> Iterator[LabelledRow]:
        """Joined corrections and preferences in order of commits."""
        with self.store.read() as conn:
            found = feedback.labelled(conn, model, upto_seq=self.upto_seq)
        yield from found
