"""A source into the store: each batch and the cursor after it in one transaction, bad rows named, good ones kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from configs.errors import TidemillError
from data_contracts.redaction import Redactor
from data_contracts.sources.admit import Arrival, admit
from data_contracts.sources.base import Cursor, RowError, Source
from store import feedback, interactions, joined
from store.engine import Store
from store.erasure import erased_among

ERRORS_KEPT = 1000
"""Bad rows that are named in a report; all are counted."""
REASONS_KEPT = 50
ERASED = "erased"
"""The reason of interactions and feedback that were erased here: reading them again does not bring them back."""
Save = Callable[[Connection, Cursor], Any]


@dataclass(frozen=True)
class ImportReport:
    """What an import did; rows that were there already count as repeated only."""

    interactions: int
    feedback: int
    repeated: int
    """Interactions and feedback that were stored before."""
    rejected: int
    errors: tuple[RowError, ...]
    """The first `ERRORS_KEPT` of the rejected rows."""
    kinds: dict[str, int]
    """New feedback by kind."""
    skipped: dict[str, int]
    """What the source left out on purpose, by reason."""
    finished: bool = True
    """False if it was stopped before the source's end."""


@dataclass
class _Tally:
    interactions: int = 0
    feedback: int = 0
    repeated: int = 0
    rejected: int = 0
    errors: list[RowError] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def reject(self, errors: Sequence[RowError]) -> None:
        """Count all, name the first."""
        self.rejected += len(errors)
        self.errors += errors[: max(ERRORS_KEPT - len(self.errors), 0)]

    def skip(self, reasons: Mapping[str, int]) -> None:
        """Count what was left out; names in a file are endless, reasons in a report are not."""
        for reason, n in reasons.items():
            known = reason in self.skipped or len(self.skipped) < REASONS_KEPT
            self.skipped[reason if known else "other reasons"] += n

    def report(self, finished: bool) -> ImportReport:
        return ImportReport(
            self.interactions, self.feedback, self.repeated, self.rejected, tuple(self.errors),
            dict(sorted(self.kinds.items())), dict(sorted(self.skipped.items())), finished,
        )  # fmt: skip


def ingest(
    store: Store,
    model: str,
    key: bytes,
    source: Source,
    *,
    cursor: Cursor | None = None,
    save: Save | None = None,
    redactor: Redactor | None = None,
    dry_run: bool = False,
    go_on: Callable[[ImportReport], bool] | None = None,
) -> ImportReport:
    """Read a source to its end and store what is new.

    Args:
        store: where to.
        model: the product model's name; a row that names another is rejected.
        key: the installation's secret, for the ids.
        source: from where.
        cursor: how far the source was read before.
        save: called in the transaction of each batch with the cursor after it: both are there or neither.
        redactor: with this installation's policy; None masks everything.
        dry_run: look and count, write nothing.
        go_on: asked after each batch; False stops there.

    Raises:
        SourceError: the source cannot be reached now; what came before is stored.
        InputError: the source is none.
    """
    tally = _Tally()
    redactor = redactor or Redactor()
    for batch in source.read(cursor):
        arrivals, errors = admit(batch.rows, model=model, key=key, redactor=redactor)
        tally.reject(sorted((*batch.errors, *errors), key=lambda e: (e.origin, e.line)))
        tally.skip(batch.skipped)
        if dry_run:
            _count(store, arrivals, tally)
        else:
            _write(store, model, arrivals, tally, lambda conn, at=batch.cursor: save(conn, at) if save else None)
        if go_on is not None and not go_on(tally.report(False)):
            return tally.report(False)
    return tally.report(True)


def _nothing(_conn: Connection) -> None:
    """Keep no cursor: more of the batch follows."""


def _count(store: Store, arrivals: Sequence[Arrival], tally: _Tally) -> None:
    served, said = _ids(arrivals)
    with store.read() as conn:
        gone = erased_among(conn, [*served, *said])
        new = set(served) - interactions.existing(conn, list(served)) - gone
        on = {a.feedback.id: a.interaction.id for a in arrivals if a.feedback is not None}
        new_said = {one for one in said if one not in gone and on[one] not in gone}
        new_said -= joined.known_feedback(conn, list(new_said))
    _add(tally, arrivals, len(new), new_said, gone)


def _ids(arrivals: Sequence[Arrival]) -> tuple[dict[str, None], dict[str, None]]:
    served = dict.fromkeys(a.interaction.id for a in arrivals)
    return served, dict.fromkeys(a.feedback.id for a in arrivals if a.feedback is not None)


def _add(tally: _Tally, arrivals: Sequence[Arrival], new: int, new_said: set[str], gone: set[str]) -> None:
    said = {a.feedback.id: a.feedback for a in arrivals if a.feedback is not None}
    tally.kinds.update(one.kind.value for ident, one in said.items() if ident in new_said)
    tally.interactions += new
    tally.feedback += len(new_said)
    # Rows of one line repeat their interaction without being repeats.
    lines = {(a.origin, a.line, a.interaction.id) for a in arrivals}
    pieces = [(a.interaction.id, a.feedback.id) for a in arrivals if a.feedback is not None]
    erased = sum(served in gone for _, _, served in lines) + sum(not gone.isdisjoint(piece) for piece in pieces)
    if erased:
        tally.skip({ERASED: erased})
    tally.repeated += len(lines) - new + len(pieces) - len(new_said) - erased


def _write(store: Store, model: str, arrivals: Sequence[Arrival], tally: _Tally, save: Callable[..., Any]) -> None:
    """One transaction for all; where a row cannot be stored, halves of them. The last one keeps the cursor."""
    try:
        with store.write() as conn:
            served = {a.interaction.id: a.interaction for a in arrivals}
            gone = erased_among(conn, {*served, *(a.feedback.id for a in arrivals if a.feedback is not None)})
            new = len(set(served) - interactions.existing(conn, sorted(served)) - gone)
            interactions.insert(conn, list(served.values()))
            new_said = feedback.insert_new(conn, [(model, a.feedback) for a in arrivals if a.feedback is not None])
            save(conn)
    except TidemillError as error:
        if len(arrivals) > 1:
            half = len(arrivals) // 2
            _write(store, model, arrivals[:half], tally, _nothing)
            _write(store, model, arrivals[half:], tally, save)
            return
        if not arrivals:
            raise
        tally.reject([RowError.of(arrivals[0].origin, arrivals[0].line, error)])
        _write(store, model, (), tally, save)
        return
    _add(tally, arrivals, new, new_said, gone)
