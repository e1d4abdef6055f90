"""What is older than its time: which rows, and deleting them in batches. The ids go too: nothing keeps them out."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select

from store import reviews
from store.rows import chunks, take
from store.tables import feedback, incidents, interactions, quarantine

BATCH = 2_000


def _old_feedback(model: str, before: datetime) -> ColumnElement[bool]:
    return (feedback.c.model == model) & (feedback.c.created_at < before)


def _old_interactions(model: str, before: datetime) -> Select[tuple[str]]:
    """A request that feedback points to stays: without it the feedback says nothing."""
    said = exists().where(feedback.c.interaction_id == interactions.c.id)
    return select(interactions.c.id).where(interactions.c.model == model, interactions.c.created_at < before, ~said)


def _old_quarantine(model: str, before: datetime) -> ColumnElement[bool]:
    """A reviewer's word stays as long as what it is about: without it a dropped row would teach again."""
    said = exists().where(feedback.c.id == quarantine.c.row_id)
    told = exists().where(incidents.c.id == quarantine.c.row_id)
    expires = (quarantine.c.status == "held") | ~(said | told)
    return (quarantine.c.model == model) & (quarantine.c.updated_at < before) & expires


def count_feedback(conn: Connection, model: str, before: datetime) -> int:
    """Feedback older than `before`."""
    return int(
        conn.execute(select(func.count()).select_from(feedback).where(_old_feedback(model, before))).scalar_one()
    )


def count_interactions(conn: Connection, model: str, before: datetime) -> int:
    """Requests older than `before` that no feedback points to."""
    return int(conn.execute(select(func.count()).select_from(_old_interactions(model, before).subquery())).scalar_one())


def count_quarantine(conn: Connection, model: str, before: datetime) -> int:
    """Held rows not touched since `before`, and decided ones whose feedback or incident is gone."""
    query = select(func.count()).select_from(quarantine).where(_old_quarantine(model, before))
    return int(conn.execute(query).scalar_one())


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
    """Delete old held rows, which the next retrain judges again, and decided ones that are about nothing any more."""
    ids = list(conn.execute(select(quarantine.c.row_id).where(_old_quarantine(model, before))).scalars())
    for part in chunks(ids):
        conn.execute(delete(quarantine).where(quarantine.c.row_id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return len(ids)
