"""Interactions with what was said of them, in the order in which both were there.

A pair counts from the moment both halves are committed: its number is the larger of the two. So what came late, on
either side, is always ahead of a reader that has seen everything up to a number, and never behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, select

from data_contracts.records import Feedback, Interaction
from store import interactions
from store.feedback import RECORD_COLUMNS
from store.rows import chunks
from store.tables import feedback as table
from store.tables import interactions as served

_SAID = tuple(c.label(f"f_{c.name}") for c in RECORD_COLUMNS)
_SERVED = tuple(c.label(f"i_{c.name}") for c in interactions.RECORD_COLUMNS)


def _said(row: Row[Any]) -> Feedback:
    return Feedback.model_validate({c.name: row._mapping[f"f_{c.name}"] for c in RECORD_COLUMNS})


def between(conn: Connection, model: str, after: int, upto: int) -> list[tuple[int, Interaction, Feedback | None]]:
    """`(number, interaction, feedback)` of all that became complete in (after, upto], in that order.

    An interaction comes alone (feedback None) at its own number, or with each feedback that waited for it.
    """
    both = and_(table.c.interaction_id == served.c.id, table.c.model == served.c.model)
    waited = and_(both, table.c.seq < served.c.seq)
    arrived = (
        select(served.c.seq.label("at"), *_SERVED, *_SAID)
        .join_from(served, table, waited, isouter=True)
        .where(served.c.model == model, served.c.seq > after, served.c.seq <= upto)
    )
    followed = (
        select(table.c.seq.label("at"), *_SERVED, *_SAID)
        .join_from(table, served, both)
        .where(table.c.model == model, table.c.seq > after, table.c.seq <= upto, served.c.seq < table.c.seq)
    )
    found = []
    for query in (arrived, followed):
        for row in conn.execute(query):
            said = None if row.f_id is None else _said(row)
            found.append((int(row.at), interactions.to_record(row, "i_"), said))
    found.sort(key=lambda one: (one[0], one[2].id if one[2] else ""))
    return found


def of_interactions(conn: Connection, ids: Sequence[str]) -> dict[str, list[Feedback]]:
    """Feedback by interaction, in order of commits."""
    found: dict[str, list[Feedback]] = {}
    for part in chunks(ids):
        query = select(*_SAID).where(table.c.interaction_id.in_(part)).order_by(table.c.seq)
        for row in conn.execute(query):
            said = _said(row)
            found.setdefault(said.interaction_id, []).append(said)
    return found


def known_feedback(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that are stored."""
    found: set[str] = set()
    for part in chunks(ids):
        found.update(conn.execute(select(table.c.id).where(table.c.id.in_(part))).scalars())
    return found


def next_number(conn: Connection, model: str, after: int) -> int | None:
    """The first number after `after` given to a row of the model, or None."""
    firsts = [
        conn.execute(
            select(t.c.seq).where(t.c.model == model, t.c.seq > after).order_by(t.c.seq).limit(1)
        ).scalar_one_or_none()
        for t in (served, table)
    ]
    return min((int(n) for n in firsts if n is not None), default=None)
