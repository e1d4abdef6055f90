"""What is older than its time: which rows, and deleting them in batches. The ids go too: nothing keeps them out."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select

from store import reviews
from store.rows import chunks, take
from store.tables import feedback, interactions, quarantine

BATCH = 2_000


def _old_feedback(model: str, before: datetime) -> ColumnElement[bool]:
    return (feedback.c.model == model) & (feedback.c.created_at < before)


def _old_interactions(model: str, before: datetime) -> Select[tuple[str]]:
    """A request that feedback points to stays: without it the feedback says nothing."""
    said = exists().where(feedback.c.interaction_id == interactions.c.id)
    return select(interactions.c.id).where(interactions.c.model == model, interactions.c.created_at < before, ~said)


def count_feedback(conn: Connection, model: str, before: datetime) -> int:
    """Feedback older than `before`."""
    return int(
        conn.execute(select(func.count()).select_from(feedback).where(_old_feedback(model, before))).scalar_one()
    )


def count_interactions(conn: Connection, model: str, before: datetime) -> int:
    """Requests older than `before` that no feedback points to."""
    return int(conn.execute(select(func.count()).select_from(_old_interactions(model, before).subquery())).scalar_one())


def count_quarantine(conn: Connection, model: str, before: datetime) -> int:
    """Quarantined rows not touched since `before`."""
    old = (quarantine.c.model == model) & (quarantine.c.updated_at < before)
    return int(conn.execute(select(func.count()).select_from(quarantine).where(old)).scalar_one())


def drop_feedback(conn: Connection, model: str, before: datetime) -> list[str]:
    """Delete one batch of old feedback with its quarantine and review items; returns the ids."""
    take(conn, "seq", 0)
    query = select(feedback.c.id).where(_old_feedback(model, before)).order_by(feedback.c.seq).limit(BATCH)
    ids = list(conn.execute(query).scalars())
    for part in chunks(ids):
        conn.execute(delete(feedback).where(feedback.c.id.in_(part)))
        conn.execute(delete(quarantine).where(quarantine.c.row_id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return ids


def drop_interactions(conn: Connection, model: str, before: datetime) -> list[str]:
    """Delete one batch of old requests; returns the ids."""
    take(conn, "seq", 0)
    query = _old_interactions(model, before).order_by(interactions.c.seq).limit(BATCH)
    ids = list(conn.execute(query).scalars())
    for part in chunks(ids):
        conn.execute(delete(interactions).where(interactions.c.id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return ids


def drop_quarantine(conn: Connection, model: str, before: datetime) -> int:
    """Delete old quarantined rows; a row still in the feedback is judged again by the next retrain."""
    old = (quarantine.c.model == model) & (quarantine.c.updated_at < before)
    ids = list(conn.execute(select(quarantine.c.row_id).where(old)).scalars())
    for part in chunks(ids):
        conn.execute(delete(quarantine).where(quarantine.c.row_id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return len(ids)
