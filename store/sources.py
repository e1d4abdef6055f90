"""How far each source of feedback was read, and how its last pull went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from data_contracts.digests import digest
from data_contracts.records import utc_now
from store.rows import checked, insert_into
from store.tables import source_cursors as table


@dataclass(frozen=True)
class SourceRow:
    """One source as the store knows it."""

    name: str
    cursor: dict[str, Any] | None
    report: dict[str, Any]
    """Counts of the last pull that came to an end or was stopped, and its first bad rows."""
    error: str
    """Why the last pull failed; empty if it did not."""
    failures: int
    """Pulls that failed since the last that did not."""
    updated_at: datetime


def cursor(conn: Connection, model: str, name: str) -> dict[str, Any] | None:
    """How far the source was read, or None before the first batch."""
    query = select(table.c.cursor).where(table.c.model == model, table.c.source == digest(name))
    found: dict[str, Any] | None = conn.execute(query).scalar_one_or_none()
    return found


def save_cursor(conn: Connection, model: str, name: str, at: Mapping[str, Any]) -> None:
    """Keep how far the source was read; call it in the transaction that writes the rows before it."""
    _put(conn, model, name, {"cursor": dict(at)})


def succeeded(conn: Connection, model: str, name: str, report: Mapping[str, Any]) -> None:
    """Keep how a pull went."""
    _put(conn, model, name, {"report": dict(report), "error": "", "failures": 0})


def failed(conn: Connection, model: str, name: str, error: str) -> int:
    """Keep why a pull failed; returns how many have since the last good one."""
    query = select(table.c.failures).where(table.c.model == model, table.c.source == digest(name))
    failures = int(conn.execute(query).scalar_one_or_none() or 0) + 1
    _put(conn, model, name, {"error": error, "failures": failures})
    return failures


def _put(conn: Connection, model: str, name: str, facts: Mapping[str, Any]) -> None:
    fresh = {**facts, "updated_at": utc_now()}
    first = {"model": model, "source": digest(name), "name": name, "report": {}, "error": "", "failures": 0, **fresh}
    conn.execute(
        insert_into(conn, table)
        .values(checked(table, first))
        .on_conflict_do_update(index_elements=["model", "source"], set_=checked(table, fresh))
    )


def every(conn: Connection, model: str) -> list[SourceRow]:
    """All sources that were ever pulled for a model, by name."""
    query = select(table).where(table.c.model == model).order_by(table.c.name)
    return [SourceRow(r.name, r.cursor, r.report, r.error, r.failures, r.updated_at) for r in conn.execute(query)]
