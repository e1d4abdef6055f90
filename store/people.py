"""What the store knows of people who gave corrections: since when each of them is here.

The first request may be gone by retention: its time is kept under a keyed pseudonym, made by the caller (`alias`), so
that no name is kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, exists, func, select

from store.feedback import TEACHING_KINDS
from store.rows import checked, chunks, insert_into
from store.tables import feedback, interactions
from store.tables import first_seen as table


def first_seen(
    conn: Connection, model: str, alias: Callable[[str], str], kinds: Sequence[str] = TEACHING_KINDS
) -> dict[str, datetime]:
    """`{principal: time of the first request}` of those who gave a correction or a preference, or other `kinds`."""
    spoke = select(feedback.c.principal).where(feedback.c.model == model, feedback.c.kind.in_(kinds))
    query = (
        select(interactions.c.principal, func.min(interactions.c.created_at).label("first"))
        .where(interactions.c.model == model, interactions.c.principal.in_(spoke))
        .group_by(interactions.c.principal)
    )
    found = {row.principal: row.first for row in conn.execute(query)}
    if not conn.execute(select(exists().where(table.c.model == model))).scalar_one():
        return found
    named = {alias(name): name for name in conn.execute(spoke.distinct()).scalars()}
    for part in chunks(named):
        for row in conn.execute(select(table).where(table.c.model == model, table.c.pseudonym.in_(part))):
            name = named[row.pseudonym]
            found[name] = min(row.at, found.get(name, row.at))
    return found


def first_came_between(conn: Connection, model: str, after: datetime, upto: datetime) -> bool:
    """Whether the first request kept of somebody who gave a correction or a preference is from these times.

    Cheap: nobody who spoke before `after` is looked up. A first request that retention deleted is not asked for, so a
    True may be wrong; a False is right.
    """
    spoke = select(feedback.c.principal).where(
        feedback.c.model == model, feedback.c.kind.in_(TEACHING_KINDS), feedback.c.created_at > after
    )
    first = func.min(interactions.c.created_at)
    query = (
        select(interactions.c.principal)
        .where(interactions.c.model == model, interactions.c.principal.in_(spoke))
        .group_by(interactions.c.principal)
        .having(first > after, first <= upto)
        .limit(1)
    )
    return conn.execute(query).first() is not None


def remember(conn: Connection, model: str, firsts: Mapping[str, datetime]) -> None:
    """Keep `{pseudonym: time of the first request}`; an earlier time that is kept already stays."""
    rows = [checked(table, {"model": model, "pseudonym": who, "at": at}) for who, at in firsts.items()]
    if rows:
        statement = insert_into(conn, table)
        earlier = statement.excluded["at"]
        conn.execute(
            statement.on_conflict_do_update(
                index_elements=["model", "pseudonym"], set_={"at": earlier}, where=earlier < table.c.at
            ),
            rows,
        )


def remembered(conn: Connection, pseudonym: str) -> int:
    """For how many models somebody's first request is kept."""
    return int(conn.execute(select(func.count()).select_from(table).where(table.c.pseudonym == pseudonym)).scalar_one())


def forget(conn: Connection, pseudonym: str, upto: datetime | None = None) -> int:
    """Erase what is kept of somebody, of requests up to a time; returns for how many models."""
    statement = delete(table).where(table.c.pseudonym == pseudonym)
    return conn.execute(statement if upto is None else statement.where(table.c.at <= upto)).rowcount
