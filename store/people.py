"""What the store knows of people who gave corrections."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, func, select

from store.feedback import TEACHING_KINDS
from store.tables import feedback, interactions


def first_seen(conn: Connection, model: str) -> dict[str, datetime]:
    """`{principal: time of the first request}` of those who gave a correction or a preference."""
    spoke = select(feedback.c.principal).where(feedback.c.model == model, feedback.c.kind.in_(TEACHING_KINDS))
    query = (
        select(interactions.c.principal, func.min(interactions.c.created_at).label("first"))
        .where(interactions.c.model == model, interactions.c.principal.in_(spoke))
        .group_by(interactions.c.principal)
    )
    return {row.principal: row.first for row in conn.execute(query)}
