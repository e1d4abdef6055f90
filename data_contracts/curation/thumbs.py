"""Curation of thumbs: answers that were served and somebody's word on them, good or bad.

A thumb says nothing that others could confirm, so agreement, corroboration and bursts have nothing to judge; what
counts is who gave it, that it is one vote, and that nobody says the opposite. Thumbs measure nothing: those of held-out
people are left out, and so is every prompt on which a held-out person gave a correction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime

import numpy as np

from configs.curation import CurationSection
from data_contracts.curation.desk import Desk
from data_contracts.curation.holdout import is_held_out
from data_contracts.curation.listed import left_out
from data_contracts.curation.pipeline import Beside, open_desk
from data_contracts.curation.results import CurationResult, Person
from data_contracts.curation.rows import ListedRows, conversation_text
from data_contracts.curation.rules import (
    balance,
    cap,
    contaminated,
    dictated,
    dropped,
    no_voice,
    one_vote,
    opposed,
    personal_data,
    redaction_policy,
    repeats,
    suspect,
    untrusted,
)
from data_contracts.records import LabelledRow, SnapshotRow
from data_contracts.redaction import Redactor


def curate_thumbs(
    rows: Sequence[LabelledRow],
    released: Set[str],
    config: CurationSection,
    eval_prompts: Iterable[str],
    *,
    beside: Sequence[LabelledRow] = (),
    taught: Sequence[SnapshotRow] = (),
    dropped: Set[str] = frozenset(),
    people: Mapping[str, Person] | None = None,
    suspects: Set[str] = frozenset(),
    now: datetime | None = None,
    redactor: Redactor | None = None,
) -> CurationResult:
    """Decide which thumbs teach; none of them measures. The result does not depend on the order of the rows.

    Args:
        rows: thumbs that met the contract, with the answers they are about.
        released: see `curate`, as are all others but
        config: the policy.
        eval_prompts: protected prompts.
        beside: the corrections and preferences of the round: prompts of held-out people are not for thumbs.
        taught: what corrections and preferences teach; a thumb that says otherwise is left out.
        dropped: ids.
        people: by principal.
        suspects: ids.
        now: when ages are taken.
        redactor: with the installation's policy and key.
    """
    redactor = redactor or Redactor()
    listed = ListedRows(rows, redactor)
    protected = [*eval_prompts, *held_prompts(beside, config)]
    known = Beside(protected, dropped, people, suspects, None, None, now, redactor.policy)
    desk = open_desk(listed, released, config, known, details=True)
    answers = opposed.taught_answers([(conversation_text(row.messages), row.completion) for row in taught])
    _decide(desk, np.array([row.thumb or 0 for row in listed.records], dtype=np.int64), answers)
    here = desk.here.tolist()
    return CurationResult([_label_row(listed.records[place]) for place in here], [], left_out(desk, listed.records))


def _decide(desk: Desk, labels: np.ndarray, taught: Mapping[str, Set[str]]) -> None:
    dropped.apply(desk)
    suspect.apply(desk)
    redaction_policy.apply(desk)
    personal_data.apply(desk)
    _held_out(desk)
    one_vote.apply(desk)
    no_voice.apply(desk)
    dictated.apply(desk)
    untrusted.apply(desk)
    contaminated.apply(desk, desk.here[:0])
    opposed.apply(desk, labels, taught)
    repeats.apply(desk)
    cap.apply(desk)
    balance.apply(desk)


def _held_out(desk: Desk) -> None:
    held = np.array([is_held_out(name, desk.policy) for name in desk.columns.principals], dtype=bool)
    here = desk.here
    if len(held):
        theirs = held[desk.columns.principal[here]] & ~desk.columns.review_scope[here]
        desk.leave_out("held_out", here[theirs], "from a held-out person; thumbs measure nothing")


def held_prompts(rows: Sequence[LabelledRow], config: CurationSection) -> list[str]:
    """What held-out people asked, whether it is an item of the target suite now or not: it may be one tomorrow."""
    held = [row for row in rows if row.scope != "review" and is_held_out(row.principal, config)]
    said = [(conversation_text(row.messages), [(m.role, m.content) for m in row.messages]) for row in held]
    return [text for whole, messages in said for text in (whole, *contaminated.questions(messages))]


def _label_row(row: LabelledRow) -> SnapshotRow:
    return SnapshotRow(
        digest=row.digest,
        split="train",
        source="thumb",
        messages=row.messages,
        completion=row.completion.strip(),
        row_id=row.id,
        slice="thumb up" if row.thumb == 1 else "thumb down",
        label=row.thumb,
    )
