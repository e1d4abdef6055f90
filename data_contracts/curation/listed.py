"""Curation of records in a list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import numpy as np

from configs.curation import CurationSection
from data_contracts.curation.desk import Desk
from data_contracts.curation.pipeline import Beside, decide, open_desk
from data_contracts.curation.results import REASONS, CurationResult, Embed, Person, slice_of
from data_contracts.curation.rows import ListedRows, rejected_of
from data_contracts.records import FeedbackKind, LabelledRow, QuarantinedRow, SnapshotRow
from data_contracts.redaction import Redactor


def curate(
    rows: Sequence[LabelledRow],
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
    redactor: Redactor | None = None,
) -> CurationResult:
    """Decide what teaches. The result does not depend on the order of the rows.

    Args:
        rows: rows that met the contract, in any order.
        released: ids a person let through; they count as reviewed. An evaluation prompt is never let through.
        config: the policy.
        eval_prompts: prompts of anchors and incidents, which no training prompt may come near.
        dropped: ids a person ruled out for good.
        people: what is known of principals; who is not there is as old as the earliest of their rows.
        suspects: ids of rows that were new in a round that ended badly.
        earlier: row id -> split in earlier snapshots; keeps every prompt on its side for ever.
        embed: sentence embeddings (`curation.embeddings`); without it prompts are compared by words.
        redactor: with the installation's policy and key; None masks everything.
        now: when accounts' ages are taken; default (and at least) the time of the latest row.
    """
    redactor = redactor or Redactor()
    listed = ListedRows(rows, redactor)
    beside = Beside(eval_prompts, dropped, people, suspects, earlier, embed, now, redactor.policy)
    desk = open_desk(listed, released, config, beside, details=True)
    decide(desk)
    records, here = listed.records, desk.here.tolist()
    return CurationResult(
        train=[_snapshot_row(records[place], "train") for place in here if not desk.target[place]],
        target=[_snapshot_row(records[place], "target") for place in here if desk.target[place]],
        left_out=left_out(desk, records),
    )


def left_out(desk: Desk, records: Sequence[LabelledRow]) -> list[QuarantinedRow]:
    """What the rules took off the desk, by row id."""
    reason = {place: REASONS[int(desk.code[place]) - 1] for place in np.flatnonzero(desk.code).tolist()}
    left = [
        QuarantinedRow(
            row_id=records[place].id,
            digest=records[place].digest,
            reason=code,
            detail=desk.details[place],
            status="dropped" if code == "dropped" else "held",
        )
        for place, code in reason.items()
    ]
    return sorted(left, key=lambda row: row.row_id)


def _snapshot_row(row: LabelledRow, split: Any) -> SnapshotRow:
    rejected = rejected_of(row)
    return SnapshotRow(
        digest=row.digest,
        split=split,
        source="preference" if row.kind is FeedbackKind.PREFERENCE else "correction",
        messages=row.messages,
        completion=row.completion.strip(),
        row_id=row.id,
        slice=slice_of(row.completion),
        rejected=None if rejected is None else rejected.strip(),
    )
