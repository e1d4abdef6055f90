"""The seam every source of feedback implements, and its in-memory double."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from data_contracts.records import LabelledRow


class Source(Protocol):
    """Somewhere feedback comes from."""

    def rows(self, model: str) -> Iterator[LabelledRow]:
        """Corrections and preferences of a model, each with the request it points to, oldest first."""
        ...


@dataclass(frozen=True)
class MemorySource:
    """Rows held in memory, by model."""

    by_model: dict[str, Sequence[LabelledRow]]

    def rows(self, model: str) -> Iterator[LabelledRow]:
        """The rows given for `model`."""
        yield from self.by_model.get(model, ())
