"""Snapshot rows to tokens: the chat template, and supervision on the completion only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from configs.objectives import ObjectivesSection
from configs.schema import LongRows
from data_contracts.records import SnapshotRow
from models.packing import TokenRow
from models.prompts import completion_ids
from training.long_rows import prompt_within, refuse_long

UNKNOWN = (math.nan, math.nan)


@dataclass(frozen=True)
class Pair:
    """A preference: two answers to one prompt, which are packed together.

    `reference`: what the reference gives to both, nats (`training.reference`).
    """

    chosen: TokenRow
    rejected: TokenRow
    reference: tuple[float, float] = UNKNOWN

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True)
class Rated:
    """An answer with a thumb, +1 or -1.

    `other` is the same prompt with another row's answer, for KTO's point of reference; `reference`: what the reference
    gives to both, nats.
    """

    row: TokenRow
    other: TokenRow
    label: int
    reference: tuple[float, float] = UNKNOWN

    def __len__(self) -> int:
        return len(self.row)


Example = TokenRow | Pair | Rated


@dataclass(frozen=True)
class TokenisedRows:
    """Rows ready to train on, and what could not be kept whole.

    Attributes:
        rows: in the order of the snapshot.
        shortened: row digests whose prompt lost its beginning.
        skipped: row digests that are too long and were left out.
        digests: of `rows`.
        unpaired: digests of preferences whose rejected answer does not fit; the chosen one teaches as a correction.
        unused: digests of rows whose objective has no weight, or of a single thumb.
    """

    rows: tuple[Example, ...]
    shortened: tuple[str, ...]
    skipped: tuple[str, ...]
    digests: tuple[str, ...] = ()
    unpaired: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """All tokens of one epoch."""
        return sum(len(row) for row in self.rows)

    def count(self, kind: type[Example]) -> int:
        """Rows of one kind."""
        return sum(isinstance(row, kind) for row in self.rows)


def tokenise(
    rows: Sequence[SnapshotRow],
    tokenizer: Any,
    max_row_tokens: int,
    objectives: ObjectivesSection | None = None,
    long_rows: LongRows = "turns",
) -> TokenisedRows:
    """Tokenise rows for completion-only training.

    A completion is never cut: a model taught half an answer learns to stop half way.

    Args:
        rows: training rows.
        tokenizer: with a chat template.
        max_row_tokens: most tokens of prompt and completion together.
        objectives: which signals teach; None is the default profile's.
        long_rows: what happens to a longer row, see `training.long_rows`.

    Raises:
        TrainingError: a row is too long and the policy is `fail`.
    """
    weights = objectives or ObjectivesSection()
    kept: list[Example] = []
    shortened: list[str] = []
    skipped: list[str] = []
    digests: list[str] = []
    unpaired: list[str] = []
    unused: list[str] = []
    rated: list[tuple[int, str]] = []
    for row in rows:
        paired = row.rejected is not None and weights.dpo.weight > 0
        alone = weights.kto.weight if row.label is not None else weights.sft.weight
        if not paired and row.source != "replay" and alone <= 0:
            unused.append(row.digest)
            continue
        completion = completion_ids(tokenizer, row.completion)
        rejected = completion_ids(tokenizer, row.rejected or "") if paired else []
        room = max_row_tokens - max(len(completion), len(rejected))
        prompt, cut = prompt_within(tokenizer, row.messages, room, long_rows)
        if prompt is None and paired and weights.sft.weight > 0:
            paired = False
            prompt, cut = prompt_within(tokenizer, row.messages, max_row_tokens - len(completion), long_rows)
            if prompt is not None:
                unpaired.append(row.digest)
        if prompt is None:
            skipped.append(row.digest)
            continue
        if cut:
            shortened.append(row.digest)
        digests.append(row.digest)
        plain = TokenRow(tuple(prompt), tuple(completion), replay=row.source == "replay")
        if row.label is not None:
            rated.append((len(kept), row.digest))
            kept.append(Rated(plain, plain, row.label))
        else:
            kept.append(Pair(plain, replace(plain, completion=tuple(rejected))) if paired else plain)
    if long_rows == "fail":
        refuse_long([*shortened, *skipped, *unpaired], max_row_tokens)
    if len(rated) == 1:
        # There is no other answer to see how far the model has moved from the reference.
        unused.append(rated[0][1])
        del kept[rated[0][0]], digests[rated[0][0]]
    else:
        _mismatch(kept, [place for place, _ in rated], max_row_tokens)
    texts = (shortened, skipped, digests, unpaired, unused)
    return TokenisedRows(tuple(kept), *map(tuple, texts))


def _mismatch(examples: list[Example], rated: Sequence[int], max_row_tokens: int) -> None:
    """Give each rated row the answer of the one before it, around the circle, cut where it does not fit."""
    rows = [one.row for one in examples if isinstance(one, Rated)]
    for number, place in enumerate(rated):
        own, before = rows[number], rows[number - 1]
        room = max(1, max_row_tokens - len(own.prompt))
        one = examples[place]
        if isinstance(one, Rated):
            examples[place] = replace(one, other=replace(own, completion=before.completion[:room]))
