"""The order of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from configs.curation import CurationSection
from data_contracts.curation.desk import Desk, Facts
from data_contracts.curation.judgement import judge
from data_contracts.curation.near import first_alike
from data_contracts.curation.results import Embed, Person
from data_contracts.curation.rows import Columns, Rows, columns_of, conversation_text, microseconds
from data_contracts.curation.rules import (
    balance,
    burst,
    cap,
    contaminated,
    corroboration,
    dictated,
    dropped,
    exam,
    no_voice,
    one_vote,
    outvoted,
    personal_data,
    redaction_policy,
    repeats,
    rivals,
    sides,
    suspect,
    unreliable,
)
from data_contracts.redaction import RedactionPolicy

ASIDE = 255
"""Code of rows that are set aside for a moment."""


@dataclass(frozen=True)
class Beside:
    """What curation is told beside rows and policy; see `curate`."""

    eval_prompts: Iterable[str]
    dropped: Set[str]
    people: Mapping[str, Person] | None
    suspects: Set[str]
    earlier: Mapping[str, str] | None
    embed: Embed | None
    now: datetime | None
    redaction: RedactionPolicy


def _facts(columns: Columns, beside: Beside) -> Facts:
    persons = len(columns.principals)
    first = np.full(persons, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, columns.principal, columns.when)
    right, seen = np.zeros(persons, dtype=np.int32), np.zeros(persons, dtype=np.int32)
    age_known = np.zeros(persons, dtype=bool)
    for code, name in enumerate(columns.principals if beside.people else ()):
        person = (beside.people or {}).get(name)
        if person is not None:
            right[code], seen[code] = person.gold_right, person.gold_seen
            if person.first_seen is not None:
                first[code] = min(int(first[code]), microseconds(person.first_seen))
                age_known[code] = True
    latest = int(columns.when.max(initial=0))
    return Facts(
        eval_prompts=tuple(beside.eval_prompts),
        first_seen=first,
        age_known=age_known,
        gold_right=right,
        gold_seen=seen,
        now=latest if beside.now is None else max(latest, microseconds(beside.now)),
        dropped=frozenset(beside.dropped),
        suspects=frozenset(beside.suspects),
        sides=beside.earlier or {},
        embed=beside.embed,
        redaction=beside.redaction,
    )


def decide(desk: Desk) -> None:
    """Apply every rule, in order."""
    dropped.apply(desk)
    suspect.apply(desk)
    redaction_policy.apply(desk)
    personal_data.apply(desk)
    one_vote.apply(desk)
    no_voice.apply(desk)
    dictated.apply(desk)
    judged = judge(desk)
    if judged is not None:
        burst.apply(desk, judged)
        corroboration.apply(desk, judged, judged.given)
        outvoted.apply(desk, judged)
        corroboration.apply(desk, judged, judged.tally.support)
        unreliable.apply(desk, judged)
        rivals.apply(desk, judged)
    sides.apply(desk)
    here = desk.here
    held = here[desk.held_out[here]]
    exam.apply(desk)
    contaminated.apply(desk, held)
    repeats.apply(desk)
    _caps(desk)


def _caps(desk: Desk) -> None:
    """Caps are of what teaches: the target rows are set aside meanwhile."""
    target = desk.target.copy()
    desk.code[target] = ASIDE
    cap.apply(desk)
    balance.apply(desk)
    desk.code[target] = 0


def open_desk(rows: Rows, released: Set[str], config: CurationSection, beside: Beside, *, details: bool) -> Desk:
    """All rows on the desk."""
    columns = columns_of(rows, released)
    cluster = first_alike(_Conversations(rows, columns), config.near_duplicate_similarity)
    return Desk(rows, columns, _facts(columns, beside), config, cluster, keep_details=details)


class _Conversations(Sequence[str]):
    """The distinct conversations, read one at a time."""

    def __init__(self, rows: Rows, columns: Columns) -> None:
        self._rows, self._places = rows, columns.prompt_row

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        return conversation_text(self._rows.messages(int(self._places[place])))
