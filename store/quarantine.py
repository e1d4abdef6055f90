"""Rows that may not teach, with the reason; a reviewer's word on a row stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, case, delete, exists, select, update

from configs.errors import NotFoundError
from data_contracts.records import QuarantinedRow, utc_now
from store.erasure import erased_among
from store.rows import checked, chunks, insert_into, locked
from store.tables import quarantine as table

_COLUMNS = (table.c.row_id, table.c.digest, table.c.reason, table.c.detail, table.c.status)


def put(conn: Connection, model: str, rows: Sequence[QuarantinedRow], request_id: str | None) -> None:
    """Add or refresh rows; one that was released or dropped keeps that status, one that was erased is left out.

    Args:
        conn: a writing connection.
        model: whose rows.
        rows: with the rule that left each out.
        request_id: the retrain that left them out: by it a released row is known to have lost again (`left_out`).
    """
    now = utc_now()
    gone = erased_among(conn, [row.row_id for row in rows])
    last = {row.row_id: row for row in rows if row.row_id not in gone}
    values = [
        checked(table, {**row.model_dump(), "model": model, "request_id": request_id, "updated_at": now})
        for row in last.values()
    ]
    if not values:
        return
    statement = insert_into(conn, table)
    new = statement.excluded
    fields = ("digest", "reason", "detail", "request_id", "updated_at")
    status = case((table.c.status == "held", new.status), else_=table.c.status)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["row_id"], set_={**{name: new[name] for name in fields}, "status": status}
        ),
        values,
    )


def list_rows(conn: Connection, model: str, status: str | None = None) -> list[QuarantinedRow]:
    """A model's quarantined rows, by id."""
    query = select(*_COLUMNS).where(table.c.model == model).order_by(table.c.row_id)
    if status is not None:
        query = query.where(table.c.status == status)
    return [QuarantinedRow.model_validate(dict(row._mapping)) for row in conn.execute(query)]


def left_out(conn: Connection, model: str) -> list[QuarantinedRow]:
    """Rows that teach nothing now and that nobody ruled out, by id: held ones, and released ones that lost again.

    A release lets a row past most rules, not past all (an evaluation prompt, a repeat, a cap); what it lost to since is
    its reason.
    """
    again = (table.c.status == "released") & table.c.request_id.is_not(None)
    query = select(*_COLUMNS).where(table.c.model == model, (table.c.status == "held") | again)
    return [QuarantinedRow.model_validate(dict(row._mapping)) for row in conn.execute(query.order_by(table.c.row_id))]


def get(conn: Connection, model: str, row_id: str) -> QuarantinedRow | None:
    """One row, or None; a writing connection keeps it locked until its transaction ends."""
    query = select(*_COLUMNS).where(table.c.row_id == row_id, table.c.model == model)
    row = conn.execute(locked(conn, query)).one_or_none()
    return None if row is None else QuarantinedRow.model_validate(dict(row._mapping))


def statuses(conn: Connection, model: str) -> dict[str, str]:
    """`{row id: held | released | dropped}`."""
    rows = conn.execute(select(table.c.row_id, table.c.status).where(table.c.model == model)).all()
    return {row.row_id: row.status for row in rows}


def decided_since(conn: Connection, model: str, since: datetime) -> dict[str, str]:
    """`{row id: released | dropped}` of what people decided after `since` and no retrain has left out again."""
    query = select(table.c.row_id, table.c.status).where(
        table.c.model == model,
        table.c.status.in_(("released", "dropped")),
        table.c.request_id.is_(None),
        table.c.updated_at > since,
    )
    return {row.row_id: row.status for row in conn.execute(query)}


def any_held(conn: Connection, model: str) -> bool:
    """Whether a row waits for a person, for company or for its author's account to grow older."""
    return bool(conn.execute(select(exists().where(table.c.model == model, table.c.status == "held"))).scalar_one())


def set_status(conn: Connection, row_id: str, status: Literal["held", "released", "dropped"]) -> None:
    """A reviewer's word on one row; what retrains decided before it does not count any more.

    Raises:
        NotFoundError: the row is not in quarantine.
    """
    changed = conn.execute(
        update(table).where(table.c.row_id == row_id).values(status=status, request_id=None, updated_at=utc_now())
    ).rowcount
    if changed != 1:
        raise NotFoundError("The row is not in quarantine.", where="quarantine", found=row_id)


def clear(conn: Connection, model: str, row_ids: Iterable[str]) -> None:
    """Take out rows that are held but would be accepted now (for example: corroborated since).

    A released one stays, as a person's word, but is left out no more.
    """
    for part in chunks(row_ids):
        these = (table.c.model == model) & table.c.row_id.in_(part)
        conn.execute(delete(table).where(these, table.c.status == "held"))
        conn.execute(update(table).where(these, table.c.status == "released").values(request_id=None))
