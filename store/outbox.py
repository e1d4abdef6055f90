"""What must be told to systems that may be down: written with the fact, delivered afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from data_contracts.ids import new_id
from data_contracts.records import utc_now
from store.rows import checked, insert_into, wrote
from store.tables import outbox as table


@dataclass(frozen=True)
class OutboxRow:
    """One message that waits for delivery."""

    id: str
    kind: str
    key: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    error: str


def add(conn: Connection, kind: str, key: str, payload: dict[str, Any]) -> bool:
    """Add a message; the same key is added once, also after it was delivered. True if it is new."""
    values = {
        "id": new_id(),
        "kind": kind,
        "key": key,
        "payload": payload,
        "created_at": utc_now(),
        "attempts": 0,
        "error": "",
    }
    statement = insert_into(conn, table).values(checked(table, values))
    return wrote(conn, statement.on_conflict_do_nothing(index_elements=["key"]))


def pending(conn: Connection, kind: str | None = None, limit: int = 100) -> list[OutboxRow]:
    """Messages not delivered yet, oldest first."""
    query = select(table).where(table.c.delivered_at.is_(None)).order_by(table.c.created_at, table.c.id).limit(limit)
    if kind is not None:
        query = query.where(table.c.kind == kind)
    return [OutboxRow(r.id, r.kind, r.key, r.payload, r.created_at, r.attempts, r.error) for r in conn.execute(query)]


def delivered(conn: Connection, id: str) -> None:
    """Mark a message delivered."""
    conn.execute(
        update(table).where(table.c.id == id).values(delivered_at=utc_now(), attempts=table.c.attempts + 1, error="")
    )


def failed(conn: Connection, id: str, error: str) -> None:
    """Record a try that failed; the message stays pending."""
    conn.execute(update(table).where(table.c.id == id).values(attempts=table.c.attempts + 1, error=error))
