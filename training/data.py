"""Snapshot rows to tokens: the chat template, supervision on the completion only, and what happens to long rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.records import Message, SnapshotRow
from models.packing import TokenRow
from models.prompts import completion_ids, prompt_ids


@dataclass(frozen=True)
class TokenisedRows:
    """Rows ready to train on, and what could not be kept whole.

    Attributes:
        rows: in the order of the snapshot.
        shortened: row digests whose oldest turns were left out.
        skipped: row digests that do not fit even with their last message alone.
        digests: of `rows`.
    """

    rows: tuple[TokenRow, ...]
    shortened: tuple[str, ...]
    skipped: tuple[str, ...]
    digests: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """All tokens of one epoch."""
        return sum(len(row) for row in self.rows)


def _fit(tokenizer: Any, messages: Sequence[Message], room: int) -> tuple[list[int] | None, bool]:
    """Prompt ids within `room` tokens, leaving out the oldest turns but never a system message or the last message."""
    kept = list(messages)
    while True:
        ids = prompt_ids(tokenizer, kept)
        if len(ids) <= room:
            return ids, len(kept) < len(messages)
        oldest = next((i for i, m in enumerate(kept[:-1]) if m.role != "system"), None)
        if oldest is None:
            return None, False
        del kept[oldest]


def tokenise(rows: Sequence[SnapshotRow], tokenizer: Any, max_row_tokens: int) -> TokenisedRows:
    """Tokenise rows for completion-only training.

    A completion is never cut: a model taught half an answer learns to stop half way. A prompt loses its oldest turns;
    a row that is still too long is skipped and reported.

    Args:
        rows: training rows.
        tokenizer: with a chat template.
        max_row_tokens: most tokens of prompt and completion together.
    """
    kept: list[TokenRow] = []
    shortened: list[str] = []
    skipped: list[str] = []
    digests: list[str] = []
    for row in rows:
        completion = completion_ids(tokenizer, row.completion)
        prompt, cut = _fit(tokenizer, row.messages, max_row_tokens - len(completion))
        if prompt is None:
            skipped.append(row.digest)
            continue
        if cut:
            shortened.append(row.digest)
        digests.append(row.digest)
        kept.append(TokenRow(tuple(prompt), tuple(completion), replay=row.source == "replay"))
    return TokenisedRows(tuple(kept), tuple(shortened), tuple(skipped), tuple(digests))
