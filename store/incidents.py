"""Incidents: prompts the model must never get wrong again."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, Row, select, update

from configs.errors import NotFoundError
from data_contracts.records import Incident, utc_now
from store.erasure import erased_among
from store.rows import checked, insert_into
from store.tables import incidents as table

CLOSED = ("rejected", "superseded")
"""Statuses of incidents that count for nothing any more."""
_COLUMNS = tuple(c for c in table.c if c.name != "closed_at")


def _to_record(row: Row[Any]) -> Incident:
    return Incident.model_validate(dict(row._mapping))


def insert(conn: Connection, incident: Incident) -> bool:
    """Add an incident; False if not: an id that is there already is left as it is, and one that was erased, or is
    about an erased request, is left out.
    """
    about = [incident.id] if incident.interaction_id is None else [incident.id, incident.interaction_id]
    if erased_among(conn, about):
        return False
    values = checked(table, incident.model_dump(mode="python"))
    added = conn.execute(insert_into(conn, table).values(values).on_conflict_do_nothing(index_elements=["id"]))
    return added.rowcount == 1


def get(conn: Connection, id: str) -> Incident | None:
    """One incident, or None."""
    row = conn.execute(select(*_COLUMNS).where(table.c.id == id)).one_or_none()
    return None if row is None else _to_record(row)


def all(conn: Connection, model: str, status: str | None = None) -> list[Incident]:
    """A model's incidents, oldest first; those that reviewers rejected or superseded only if asked for by status."""
    query = select(*_COLUMNS).where(table.c.model == model).order_by(table.c.opened_at, table.c.id)
    query = query.where(table.c.status == status if status is not None else table.c.status.not_in(CLOSED))
    return [_to_record(row) for row in conn.execute(query)]


def set_status(conn: Connection, id: str, status: Literal["open", "fixed", "rejected", "superseded"]) -> None:
    """Mark an incident, with the time if that closes it.

    Raises:
        NotFoundError: no such incident.
    """
    values = {"status": status, "closed_at": None if status == "open" else utc_now()}
    if conn.execute(update(table).where(table.c.id == id).values(values)).rowcount != 1:
        raise NotFoundError("There is no such incident.", where="incidents", found=id)


def amend(conn: Connection, id: str, *, severity: str = "", root_cause: str = "") -> None:
    """A reviewer's words on an incident; what is empty stays as it is. Its texts never change.

    Raises:
        NotFoundError: no such incident.
    """
    values = {"severity": severity, "root_cause": root_cause}
    values = checked(table, {name: value for name, value in values.items() if value})
    if not values:
        return
    if conn.execute(update(table).where(table.c.id == id).values(values)).rowcount != 1:
        raise NotFoundError("There is no such incident.", where="incidents", found=id)
