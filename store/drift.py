"""The drift monitor's state and what it found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, select

from data_contracts.ids import new_id
from data_contracts.records import utc_now
from store.rows import checked, insert_into
from store.tables import drift_findings as found
from store.tables import drift_states as states


@dataclass(frozen=True)
class FindingRow:
    """One alarm."""

    id: str
    model: str
    at: datetime
    test: str
    name: str
    detail: dict[str, Any]


def state(conn: Connection, model: str) -> tuple[int, str, dict[str, Any]] | None:
    """`(watermark, reference digest, state)`, or None before the first look."""
    row = conn.execute(select(states).where(states.c.model == model)).one_or_none()
    return None if row is None else (row.watermark, row.reference, row.state)


def save_state(conn: Connection, model: str, watermark: int, reference: str, state: dict[str, Any]) -> None:
    """Write the monitor's state and the commit number it has seen."""
    fresh = {"watermark": watermark, "reference": reference, "state": state, "updated_at": utc_now()}
    conn.execute(
        insert_into(conn, states)
        .values(checked(states, {"model": model, **fresh}))
        .on_conflict_do_update(index_elements=["model"], set_=fresh)
    )


def add_finding(conn: Connection, model: str, test: str, name: str, detail: dict[str, Any]) -> str:
    """Record an alarm; returns its id."""
    ident = new_id()
    values = {"id": ident, "model": model, "at": utc_now(), "test": test, "name": name, "detail": detail}
    conn.execute(found.insert().values(checked(found, values)))
    return ident


def findings(conn: Connection, model: str, limit: int = 50) -> list[FindingRow]:
    """A model's alarms, newest first."""
    query = select(found).where(found.c.model == model).order_by(found.c.at.desc(), found.c.id.desc()).limit(limit)
    return [FindingRow(r.id, r.model, r.at, r.test, r.name, r.detail) for r in conn.execute(query)]


def references(conn: Connection) -> dict[str, str]:
    """`{model: digest of the reference in use}`."""
    return {row.model: row.reference for row in conn.execute(select(states.c.model, states.c.reference))}


def swap_reference(conn: Connection, model: str, old: str, new: str) -> None:
    """Another reference takes the place of one (fewer people in it); the monitor starts anew against it."""
    row = conn.execute(select(states).where(states.c.model == model, states.c.reference == old)).one_or_none()
    if row is not None:
        save_state(conn, model, row.watermark, new, {**row.state, "monitor": None})


def forget_state(conn: Connection, model: str, reference: str) -> None:
    """Watch anew: the next look freezes a reference from what is there."""
    conn.execute(delete(states).where(states.c.model == model, states.c.reference == reference))
