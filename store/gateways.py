"""Which gateway processes live, which route revision they follow and what they have loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from data_contracts.records import utc_now
from store.rows import checked, insert_into
from store.tables import gateways as table


@dataclass(frozen=True)
class GatewayRow:
    """One gateway process at its last heartbeat."""

    id: str
    model: str
    revision: int
    """Route revision it follows."""
    loaded: frozenset[str]
    """Versions it can serve."""
    error: str
    """Why it cannot load what it should; empty if all is well."""
    heartbeat_at: datetime


def heartbeat(conn: Connection, id: str, model: str, revision: int, loaded: Iterable[str], error: str = "") -> None:
    """Say that a gateway lives and what it has loaded."""
    values = checked(
        table,
        {
            "id": id,
            "model": model,
            "revision": revision,
            "loaded": sorted(set(loaded)),
            "error": error,
            "heartbeat_at": utc_now(),
        },
    )
    fresh = {key: value for key, value in values.items() if key != "id"}
    conn.execute(insert_into(conn, table).values(values).on_conflict_do_update(index_elements=["id"], set_=fresh))


def live(conn: Connection, model: str, within_s: float = 5.0) -> list[GatewayRow]:
    """Gateways of a model heard of in the last `within_s` seconds, by id."""
    after = utc_now() - timedelta(seconds=within_s)
    query = select(table).where(table.c.model == model, table.c.heartbeat_at >= after).order_by(table.c.id)
    return [
        GatewayRow(row.id, row.model, row.revision, frozenset(row.loaded), row.error, row.heartbeat_at)
        for row in conn.execute(query)
    ]


def remove(conn: Connection, id: str) -> None:
    """Forget a gateway that stops in good order."""
    conn.execute(delete(table).where(table.c.id == id))
