"""The desk: every row lies on it until a rule takes it off, with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from configs.curation import CurationSection
from data_contracts.curation.results import REASONS, Embed
from data_contracts.curation.rows import Columns, Rows, conversation_text
from data_contracts.redaction import RedactionPolicy

Detail = str | Mapping[int, str] | Callable[[int], str]
"""Why, in a sentence without anybody's words: one for all rows, or by row."""


@dataclass(frozen=True)
class Facts:
    """What the rules need beside the rows."""

    eval_prompts: tuple[str, ...]
    """Prompts of anchors and incidents, which no training prompt may come near."""
    first_seen: np.ndarray
    """int64 (principals,): first request, microseconds since 1970."""
    age_known: np.ndarray
    """bool (principals,): first_seen is the first request's time, not only that of the first row."""
    gold_right: np.ndarray
    gold_seen: np.ndarray
    """int32 (principals,)."""
    now: int
    """Microseconds since 1970."""
    dropped: frozenset[str]
    suspects: frozenset[str]
    sides: Mapping[str, str]
    """Row id -> split it had in an earlier snapshot."""
    embed: Embed | None
    redaction: RedactionPolicy


@dataclass
class Desk:
    """Rows with their columns, and what became of each."""

    rows: Rows
    columns: Columns
    facts: Facts
    policy: CurationSection
    cluster: np.ndarray
    """int32: the first prompt code of each prompt's cluster of near-duplicates, by prompt code."""
    keep_details: bool = True
    code: np.ndarray = field(init=False)
    """uint8: 0 = on the desk, else 1 + place in REASONS."""
    details: dict[int, str] = field(default_factory=dict)
    held_out: np.ndarray = field(init=False)
    """bool: the row's principal is held out for ever."""
    target: np.ndarray = field(init=False)
    """bool: chosen as an item of the target suite."""

    def __post_init__(self) -> None:
        self.code = np.zeros(len(self.rows), dtype=np.uint8)
        self.held_out = np.zeros(len(self.rows), dtype=bool)
        self.target = np.zeros(len(self.rows), dtype=bool)

    @property
    def here(self) -> np.ndarray:
        """Places of the rows on the desk, in time order."""
        return np.flatnonzero(self.code == 0)

    def leave_out(self, reason: str, places: np.ndarray, detail: Detail) -> None:
        """Take rows off the desk."""
        self.code[places] = REASONS.index(reason) + 1
        if not self.keep_details:
            return
        for place in places.tolist():
            if isinstance(detail, str):
                self.details[place] = detail
            else:
                self.details[place] = detail[place] if isinstance(detail, Mapping) else detail(place)

    def conversation(self, place: int) -> str:
        """All that was said before the answer, without the system message."""
        return conversation_text(self.rows.messages(place))
