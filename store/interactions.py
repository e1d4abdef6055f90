"""Served requests, in the order they were committed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, func, select

from data_contracts.records import Interaction
from store.erasure import erased_among
from store.rows import checked, chunks, take
from store.tables import counters
from store.tables import interactions as table

RECORD_COLUMNS = tuple(c for c in table.c if c.name != "seq")


def to_record(row: Row[Any], prefix: str = "") -> Interaction:
    """A row of the table as a record; `prefix` for columns labelled in a join."""
    values = row._mapping
    return Interaction.model_validate({c.name: values[prefix + c.name] for c in RECORD_COLUMNS})


def insert(conn: Connection, rows: Sequence[Interaction]) -> None:
    """Add rows and number them in the order of commits; an id that is there already is left as it is.

    An id that was erased stays erased: a repeated import does not bring a person back.

    Raises:
        InputError: a text neither database can hold; nothing of the batch is written then.
    """
    fresh: dict[str, Interaction] = {}
    for row in rows:
        fresh.setdefault(row.id, row)
    values = [checked(table, row.model_dump(mode="python")) for row in fresh.values()]
    if not values:
        return
    # Taking the numbers first locks the counter, so nobody adds an id between the look and the insert.
    first = take(conn, "seq", len(values))
    ids = [v["id"] for v in values]
    present = existing(conn, ids) | erased_among(conn, ids)
    values = [{**v, "seq": first + i} for i, v in enumerate(values) if v["id"] not in present]
    if values:
        conn.execute(table.insert(), values)


def existing(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of `ids` that are stored."""
    found: set[str] = set()
    for part in chunks(ids):
        found.update(conn.execute(select(table.c.id).where(table.c.id.in_(part))).scalars())
    return found


def get(conn: Connection, id: str) -> Interaction | None:
    """One interaction, or None."""
    row = conn.execute(select(*RECORD_COLUMNS).where(table.c.id == id)).one_or_none()
    return None if row is None else to_record(row)


def since(
    conn: Connection, model: str, seq: int, limit: int = 1000, *, rollout_id: str | None = None
) -> list[tuple[int, Interaction]]:
    """The next `limit` interactions after `seq`, in order of commits, of one rollout or of all traffic."""
    query = select(table).where(table.c.model == model, table.c.seq > seq).order_by(table.c.seq).limit(limit)
    if rollout_id is not None:
        query = query.where(table.c.rollout_id == rollout_id)
    return [(row.seq, to_record(row)) for row in conn.execute(query)]


def settled(
    conn: Connection, rollout_id: str, seq: int, after: datetime, upto: datetime
) -> list[tuple[int, Interaction]]:
    """A rollout's interactions that began in (after, upto], in the order they began.

    Args:
        conn: a connection.
        rollout_id: the rollout.
        seq: a commit number no later than `after`; bounds what is read.
        after: exclusive.
        upto: inclusive.
    """
    query = (
        select(table)
        .where(table.c.rollout_id == rollout_id, table.c.seq > seq)
        .where(table.c.created_at > after, table.c.created_at <= upto)
        .order_by(table.c.created_at, table.c.seq)
    )
    return [(row.seq, to_record(row)) for row in conn.execute(query)]


def latest_seq(conn: Connection) -> int:
    """The highest commit number given out so far, of interactions and feedback together; 0 if none."""
    return int(conn.execute(select(counters.c.value).where(counters.c.name == "seq")).scalar_one())


def count(conn: Connection, model: str) -> int:
    """Number of interactions of a model."""
    return int(conn.execute(select(func.count()).select_from(table).where(table.c.model == model)).scalar_one())


def latencies(conn: Connection, model: str, version: str, limit: int = 200) -> list[int]:
    """Milliseconds of a version's most recent requests that did not fail, newest first."""
    query = (
        select(table.c.latency_ms)
        .where(table.c.model == model, table.c.version == version)
        .where(cast(table.c.flags, Text).not_like('%"error"%'))
        .order_by(table.c.seq.desc())
        .limit(limit)
    )
    return [int(value) for value in conn.execute(query).scalars()]


def prompts(
    conn: Connection, model: str, *, upto_seq: int | None = None, limit: int = 5000
) -> list[tuple[int, str, str]]:
    """`(seq, principal, prompt)` of the most recent `limit` interactions up to `upto_seq`, in order of commits."""
    query = select(table.c.seq, table.c.principal, table.c.messages).where(table.c.model == model)
    if upto_seq is not None:
        query = query.where(table.c.seq <= upto_seq)
    newest = conn.execute(query.order_by(table.c.seq.desc()).limit(limit)).all()
    return [(row.seq, row.principal, _last_user(row.messages)) for row in reversed(newest)]


def prompts_since(conn: Connection, model: str, seq: int, limit: int = 2000) -> list[tuple[int, str, str]]:
    """`(seq, principal, prompt)` of the next `limit` interactions after commit `seq`, in order of commits."""
    query = select(table.c.seq, table.c.principal, table.c.messages).where(table.c.model == model, table.c.seq > seq)
    rows = conn.execute(query.order_by(table.c.seq).limit(limit))
    return [(row.seq, row.principal, _last_user(row.messages)) for row in rows]


def _last_user(messages: Sequence[dict[str, str]]) -> str:
    return next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
