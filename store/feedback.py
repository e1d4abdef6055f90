"""What people said of interactions. Feedback may arrive before its interaction is committed: it waits and joins.

A joined pair counts from the moment both are committed: its sequence number is the larger of the two.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, case, func, or_, select

from data_contracts.digests import salted_digest
from data_contracts.records import Feedback, FeedbackKind, Interaction, LabelledRow, Message
from store import interactions
from store.erasure import erased_among
from store.rows import checked, chunks, take
from store.tables import feedback as table
from store.tables import interactions as served

RECORD_COLUMNS = tuple(c for c in table.c if c.name not in ("seq", "model"))
_LABELLED_COLUMNS = (
    *RECORD_COLUMNS,
    *(served.c[name] for name in ("messages", "answer", "version")),
    served.c.principal.label("asked_by"),
)
TEACHING_KINDS = (FeedbackKind.CORRECTION.value, FeedbackKind.PREFERENCE.value)
_BOTH = and_(served.c.id == table.c.interaction_id, served.c.model == table.c.model)
_JOINED_SEQ: ColumnElement[int] = case((table.c.seq > served.c.seq, table.c.seq), else_=served.c.seq)


def _to_record(row: Row[Any]) -> Feedback:
    return Feedback.model_validate({c.name: row._mapping[c.name] for c in RECORD_COLUMNS})


def insert(conn: Connection, rows: Sequence[tuple[str, Feedback]]) -> int:
    """Add `(model, feedback)` rows; an id that is there already is left as it is. Returns the number of new rows."""
    return len(insert_new(conn, rows))


def insert_new(conn: Connection, rows: Sequence[tuple[str, Feedback]]) -> set[str]:
    """Like `insert`, but returns the ids that were new. A row without a salt gets one here.

    Feedback on an erased request, or under an erased id, is left out.

    Raises:
        InputError: a text neither database can hold; nothing of the batch is written then.
    """
    fresh: dict[str, dict[str, Any]] = {}
    for model, row in rows:
        if row.id not in fresh:
            values = {**row.model_dump(mode="python"), "model": model, "kind": row.kind.value}
            values["salt"] = row.salt or secrets.token_hex(16)
            fresh[row.id] = checked(table, values)
    if not fresh:
        return set()
    first = take(conn, "seq", len(fresh))
    present: set[str] = set()
    for part in chunks(fresh):
        present.update(conn.execute(select(table.c.id).where(table.c.id.in_(part))).scalars())
    gone = erased_among(conn, {name for v in fresh.values() for name in (v["id"], v["interaction_id"])})
    new = [
        {**v, "seq": first + i}
        for i, v in enumerate(fresh.values())
        if v["id"] not in present and v["id"] not in gone and v["interaction_id"] not in gone
    ]
    if new:
        conn.execute(table.insert(), new)
    return {v["id"] for v in new}


def get(conn: Connection, id: str) -> Feedback | None:
    """One piece of feedback, or None."""
    row = conn.execute(select(*RECORD_COLUMNS).where(table.c.id == id)).one_or_none()
    return None if row is None else _to_record(row)


def for_interaction(conn: Connection, id: str) -> list[Feedback]:
    """All feedback on one interaction, in order of commits."""
    query = select(*RECORD_COLUMNS).where(table.c.interaction_id == id).order_by(table.c.seq)
    return [_to_record(row) for row in conn.execute(query)]


def since(conn: Connection, model: str, seq: int, limit: int = 1000) -> list[tuple[int, Feedback]]:
    """The next `limit` pieces of feedback after `seq`, joined or not, in order of commits."""
    query = select(table).where(table.c.model == model, table.c.seq > seq).order_by(table.c.seq).limit(limit)
    return [(row.seq, _to_record(row)) for row in conn.execute(query)]


def labelled(
    conn: Connection, model: str, *, upto_seq: int | None = None, kinds: Sequence[str] = TEACHING_KINDS
) -> list[LabelledRow]:
    """Corrections and preferences (or other `kinds`) whose interaction is committed too, in order of commits.

    A preference's `answer` is the rejected one; a thumb's `completion` is the answer it is about. A missing text
    becomes an empty completion, for the contract to refuse.
    """
    query = (
        select(*_LABELLED_COLUMNS)
        .join_from(table, served, _BOTH)
        .where(table.c.model == model, table.c.kind.in_(kinds))
        .order_by(table.c.seq)
    )
    if upto_seq is not None:
        query = query.where(table.c.seq <= upto_seq, served.c.seq <= upto_seq)
    return [_labelled(row) for row in conn.execute(query)]


def labelled_by_id(conn: Connection, ids: Sequence[str]) -> dict[str, LabelledRow]:
    """Those of these corrections and preferences whose interaction is committed, by id."""
    found: dict[str, LabelledRow] = {}
    for part in chunks(ids):
        query = select(*_LABELLED_COLUMNS).join_from(table, served, _BOTH)
        for row in conn.execute(query.where(table.c.id.in_(part), table.c.kind.in_(TEACHING_KINDS))):
            found[row.id] = _labelled(row)
    return found


def _labelled(row: Row[Any]) -> LabelledRow:
    said = _to_record(row)
    messages = tuple(Message.model_validate(m) for m in row.messages)
    return labelled_row(said, messages, row.answer, row.version, row.asked_by)


def labelled_row(
    said: Feedback, messages: tuple[Message, ...], answer: str, version: str, asked_by: str = ""
) -> LabelledRow:
    """Feedback and the interaction it points to as one row, with its salted digest."""
    facts: dict[str, Any] = {
        "id": said.id,
        "interaction_id": said.interaction_id,
        "kind": said.kind.value,
        "principal": said.principal,
        "scope": said.scope,
        "created_at": said.created_at,
        "messages": [m.model_dump() for m in messages],
        "answer": said.rejected if said.kind is FeedbackKind.PREFERENCE and said.rejected is not None else answer,
        "completion": said.text or "",
        "version": version,
        "source": said.source,
    }
    if said.kind is FeedbackKind.THUMB:
        facts |= {"completion": answer, "thumb": said.thumb}
    return LabelledRow.model_validate(
        {**facts, "asked_by": asked_by, "digest": salted_digest(said.salt.encode(), facts)}
    )


def count_corrections_since(conn: Connection, model: str, seq: int) -> int:
    """Corrections and preferences that became complete (joined) after `seq`."""
    query = (
        select(func.count())
        .select_from(table.join(served, _BOTH))
        .where(table.c.model == model, table.c.kind.in_(TEACHING_KINDS))
        .where(or_(table.c.seq > seq, served.c.seq > seq))
    )
    return int(conn.execute(query).scalar_one())


def for_rollout(
    conn: Connection, rollout_id: str, seq: int, limit: int = 1000
) -> list[tuple[int, Feedback, Interaction]]:
    """Feedback on a rollout's requests that became complete after `seq`, in order of commits.

    Feedback that waited for its interaction has the interaction's number, so numbers can repeat. Rows with the
    last number all come together, a few more than `limit` if need be: the last number is a safe watermark.
    """
    rows = _pairs(conn, rollout_id, seq, None, limit)
    if len(rows) == limit:
        last = rows[-1][0]
        rows = [row for row in rows if row[0] < last] + _pairs(conn, rollout_id, last - 1, last, None)
    return rows


def _pairs(
    conn: Connection, rollout_id: str, seq: int, upto: int | None, limit: int | None
) -> list[tuple[int, Feedback, Interaction]]:
    # New feedback, and older feedback whose interaction is new. A request's id and its rollout settle the model;
    # naming it here led SQLite to the wrong index (minutes instead of milliseconds at 60,000 interactions).
    same = served.c.id == table.c.interaction_id
    found: list[tuple[int, Feedback, Interaction]] = []
    for where in (and_(served.c.seq > seq, table.c.seq <= seq), table.c.seq > seq):
        query = (
            select(
                _JOINED_SEQ.label("at"),
                *(c.label(f"f_{c.name}") for c in RECORD_COLUMNS),
                *(c.label(f"i_{c.name}") for c in interactions.RECORD_COLUMNS),
            )
            .join_from(table, served, same)
            .where(served.c.rollout_id == rollout_id, where)
        )
        if upto is not None:
            query = query.where(upto >= _JOINED_SEQ)
        for row in conn.execute(query.order_by("at", table.c.seq).limit(limit)):
            said = Feedback.model_validate({c.name: row._mapping[f"f_{c.name}"] for c in RECORD_COLUMNS})
            found.append((row.at, said, interactions.to_record(row, "i_")))
    # Stable, and the two ranges share no number but that of an interaction some of whose feedback came first.
    found.sort(key=lambda pair: pair[0])
    return found[:limit]
