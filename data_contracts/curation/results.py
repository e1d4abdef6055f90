"""What goes into curation beside the rows, and what comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from data_contracts.overlap import answer_key
from data_contracts.records import QuarantinedRow, SnapshotRow
from data_contracts.redaction import ENTITIES

if TYPE_CHECKING:
    import numpy as np

Embed = Callable[[Sequence[str]], "np.ndarray"]
"""Texts to float32 (n, d), each row of length 1; the same text always gives the same vector."""


@dataclass(frozen=True)
class Person:
    """What is known of a principal beside the rows."""

    first_seen: datetime | None = None
    """Time of the first request; None = the time of the earliest row."""
    gold_right: int = 0
    """Gold items of the review queue answered rightly."""
    gold_seen: int = 0
    """Gold items answered."""


@dataclass(frozen=True)
class CurationResult:
    """What teaches, what measures, and what does neither."""

    train: list[SnapshotRow]
    target: list[SnapshotRow]
    left_out: list[QuarantinedRow]

    @property
    def reasons(self) -> dict[str, int]:
        """Rows left out by reason code."""
        return dict(sorted(Counter(row.reason for row in self.left_out).items()))


def slice_of(completion: str) -> str:
    """What a snapshot's rows are grouped by in reports: the first of the normalised answer."""
    return answer_key(completion)[:48]


TRAIN, TARGET = 0, 1
"""Verdict codes of rows that teach and that measure; from 2 on, `REASONS[code - 2]` says why a row does neither."""
REASONS = (
    "dropped",
    "suspect",
    "personal_data",
    "duplicate",
    "uncorroborated",
    "dictated",
    "burst",
    "conflict",
    "unreliable",
    "held_out",
    "contaminated",
    "cap",
    "balance",
    *(f"redaction.{entity.lower()}" for entity in ENTITIES),
    "untrusted",
)
"""Reason codes, stable for ever; a new one goes to the end."""


@dataclass(frozen=True)
class Verdicts:
    """One verdict a row, in the order the rows were given."""

    codes: np.ndarray
    """uint8 (n,): TRAIN, TARGET, or 2 + the place in REASONS."""
    details: dict[int, str] = field(default_factory=dict)
    """Row's place -> the reason in a sentence; empty unless asked for."""

    def reason(self, place: int) -> str | None:
        """Reason code of one row; None if it teaches or measures."""
        code = int(self.codes[place])
        return None if code < 2 else REASONS[code - 2]

    @property
    def reasons(self) -> dict[str, int]:
        """Rows left out by reason code."""
        counts = Counter(self.codes.tolist())
        return {name: counts[n + 2] for n, name in sorted(enumerate(REASONS), key=lambda x: x[1]) if counts[n + 2]}
