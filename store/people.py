"""What the store knows of people who gave feedback."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, select

from store.feedback import TEACHING_KINDS
from store.tables import feedback, interactions


def first_seen(conn: Connection, model: str, kinds: Sequence[str] = TEACHING_KINDS) -> dict[str, datetime]:
    """`{principal: time of the first request}` of those who gave a correction or a preference, or other `kinds`."""
    spoke = select(feedback.c.principal).where(feedback.c.model == model, feedback.c.kind.in_(kinds))
    query = (
        select(interactions.c.principal, func.min(interactions.c.created_at).label("first"))
        .where(interactions.c.model == model, interactions.c.principal.in_(spoke))
        .group_by(interactions.c.principal)
    )
    return {row.principal: row.first for row in conn.execute(query)}
