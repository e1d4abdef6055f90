"""What is older than its time: which rows, and deleting them in batches. The ids go too: nothing keeps them out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, delete, exists, func, select

from data_contracts.ids import unnamed_caller
from store import people, person, requests, reviews
from store.erasure import INCIDENT_ROW, forget_salts
from store.rows import chunks, take
from store.tables import feedback, incidents, interactions, quarantine, review_items

BATCH = 2_000
DELETED_TITLE = "deleted by retention"


def _old_feedback(model: str, before: datetime) -> ColumnElement[bool]:
    return (feedback.c.model == model) & (feedback.c.created_at < before)


def _old_interactions(model: str, before: datetime) -> Select[tuple[str]]:
    """A request that feedback or an incident points to stays.

    Without it the feedback says nothing, and nobody could tell whose words the incident quotes (erasure).
    """
    said = exists().where(feedback.c.interaction_id == interactions.c.id)
    told = exists().where(incidents.c.interaction_id == interactions.c.id)
    old = (interactions.c.model == model) & (interactions.c.created_at < before)
    return select(interactions.c.id).where(old, ~said, ~told)


def _old_incidents(conn: Connection, model: str, before: datetime) -> Select[tuple[str]]:
    """Closed ones; a running retrain was taught the fixed ones and will be asked them, so these wait for its end."""
    closed_at = func.coalesce(incidents.c.closed_at, incidents.c.opened_at)
    running = requests.current_locked(conn, model)
    waiting = ("open", "fixed") if running is not None and running.status == "claimed" else ("open",)
    old = (incidents.c.model == model) & (closed_at < before)
    return select(incidents.c.id).where(old, incidents.c.status.not_in(waiting))


def _old_quarantine(model: str, before: datetime) -> ColumnElement[bool]:
    """A reviewer's word stays as long as what it is about: without it a dropped row would teach again."""
    said = exists().where(feedback.c.id == quarantine.c.row_id)
    told = exists().where(incidents.c.id == quarantine.c.row_id)
    expires = (quarantine.c.status == "held") | ~(said | told)
    return (quarantine.c.model == model) & (quarantine.c.updated_at < before) & expires


def _old_reviews(model: str, before: datetime) -> Select[tuple[str]]:
    """Settled and withdrawn items, but that of an open incident: it would be asked again."""
    asked = exists().where(incidents.c.id == review_items.c.subject, incidents.c.status == "open")
    return select(review_items.c.id).where(
        review_items.c.model == model,
        review_items.c.status.in_(("done", "withdrawn")),
        review_items.c.updated_at < before,
        ~((review_items.c.kind == "incident") & asked),
    )


def count_feedback(conn: Connection, model: str, before: datetime) -> int:
    """Feedback older than `before`."""
    return int(
        conn.execute(select(func.count()).select_from(feedback).where(_old_feedback(model, before))).scalar_one()
    )


def count_interactions(conn: Connection, model: str, before: datetime) -> int:
    """Requests older than `before` that no feedback or incident points to."""
    return _number(conn, _old_interactions(model, before))


def count_incidents(conn: Connection, model: str, before: datetime) -> int:
    """Incidents closed before `before`."""
    return _number(conn, _old_incidents(conn, model, before))


def count_reviews(conn: Connection, model: str, before: datetime) -> int:
    """Review items settled or withdrawn before `before`."""
    return _number(conn, _old_reviews(model, before))


def _number(conn: Connection, query: Select[tuple[str]]) -> int:
    return int(conn.execute(select(func.count()).select_from(query.subquery())).scalar_one())


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


def drop_interactions(conn: Connection, model: str, before: datetime, alias: Callable[[str], str]) -> list[str]:
    """Delete one batch of old requests; returns the ids.

    When somebody was first seen is kept under the pseudonym `alias` gives: trust goes by it (`store.people`).
    """
    take(conn, "seq", 0)
    query = _old_interactions(model, before).add_columns(interactions.c.principal, interactions.c.created_at)
    ids: list[str] = []
    firsts: dict[str, datetime] = {}
    for row in conn.execute(query.order_by(interactions.c.seq).limit(BATCH)):
        ids.append(row.id)
        # Who gave neither a name nor a conversation is nobody who could come again.
        if row.principal and row.principal != unnamed_caller(row.id):
            firsts[row.principal] = min(row.created_at, firsts.get(row.principal, row.created_at))
    people.remember(conn, model, {alias(name): at for name, at in firsts.items()})
    for part in chunks(ids):
        conn.execute(delete(interactions).where(interactions.c.id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return ids


def drop_incidents(conn: Connection, model: str, before: datetime) -> list[str]:
    """Delete one batch of closed incidents with their salts, quarantine and review items; returns the ids."""
    take(conn, "seq", 0)
    ids = list(conn.execute(_old_incidents(conn, model, before).order_by(incidents.c.id).limit(BATCH)).scalars())
    for part in chunks(ids):
        conn.execute(delete(incidents).where(incidents.c.id.in_(part)))
        conn.execute(delete(quarantine).where(quarantine.c.row_id.in_(part)))
    if ids:
        forget_salts(conn, [INCIDENT_ROW + ident for ident in ids])
        # Those it is the subject of: the item of one that took its place is about it too, and stays.
        reviews.remove(conn, reviews.lock_about(conn, ("incident",), ids))
        person.retitle_incidents(conn, ids, DELETED_TITLE)
    return ids


def drop_reviews(conn: Connection, model: str, before: datetime) -> list[str]:
    """Delete one batch of settled and withdrawn review items with their labels; returns the ids."""
    reviews.in_line(conn)
    ids = list(conn.execute(_old_reviews(model, before).order_by(review_items.c.id).limit(BATCH)).scalars())
    reviews.remove(conn, ids)
    return ids


def drop_quarantine(conn: Connection, model: str, before: datetime) -> int:
    """Delete old held rows, which the next retrain judges again, and decided ones that are about nothing any more."""
    ids = list(conn.execute(select(quarantine.c.row_id).where(_old_quarantine(model, before))).scalars())
    for part in chunks(ids):
        conn.execute(delete(quarantine).where(quarantine.c.row_id.in_(part)))
    if ids:
        reviews.erase(conn, ids, [])
    return len(ids)
