"""The ledger of a retrain: what is proved done is not done again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select, update

from configs.errors import ConflictError, NotFoundError
from data_contracts.digests import canonical_json
from data_contracts.records import Step, utc_now
from store.requests import check_token
from store.rows import checked, insert_into
from store.tables import steps as table


def _to_record(row: Row[Any]) -> Step:
    return Step.model_validate(dict(row._mapping))


def get(conn: Connection, request_id: str, name: str) -> Step | None:
    """One step, or None."""
    row = conn.execute(select(table).where(table.c.request_id == request_id, table.c.name == name)).one_or_none()
    return None if row is None else _to_record(row)


def begin(conn: Connection, request_id: str, name: str, input_digest: str, token: int) -> Step:
    """Start a step, or find it done.

    A step that is done with the same input is returned as it is (status `done`); anything else starts afresh.

    Raises:
        StaleTokenError: the request is no longer this worker's.
    """
    check_token(conn, request_id, token)
    known = get(conn, request_id, name)
    if known is not None and known.status == "done" and known.input_digest == input_digest:
        return known
    step = Step(
        request_id=request_id,
        name=name,
        status="running",
        input_digest=input_digest,
        token=token,
        started_at=utc_now(),
    )
    values = checked(table, step.model_dump(mode="python"))
    fresh = {key: value for key, value in values.items() if key not in ("request_id", "name")}
    conn.execute(
        insert_into(conn, table).values(values).on_conflict_do_update(index_elements=["request_id", "name"], set_=fresh)
    )
    return step


def complete(conn: Connection, request_id: str, name: str, token: int, output: dict[str, Any]) -> Step:
    """Record a step's output. Completing again with the same output is not an error.

    Raises:
        StaleTokenError: the request is no longer this worker's.
        NotFoundError: the step was never begun.
        ConflictError: the step is done with another output, or was begun under another token.
    """
    return _end(conn, request_id, name, token, "done", output, "")


def fail(conn: Connection, request_id: str, name: str, token: int, error: str) -> Step:
    """Record that a running step failed. Raises as `complete`."""
    return _end(conn, request_id, name, token, "failed", None, error)


def _end(
    conn: Connection, request_id: str, name: str, token: int, status: str, output: dict[str, Any] | None, error: str
) -> Step:
    check_token(conn, request_id, token)
    row = conn.execute(
        update(table)
        .where(table.c.request_id == request_id, table.c.name == name)
        .where(table.c.status == "running", table.c.token == token)
        .values(**checked(table, {"status": status, "error": error}), output=output, ended_at=utc_now())
        .returning(table)
    ).one_or_none()
    if row is not None:
        return _to_record(row)
    known = get(conn, request_id, name)
    if known is None:
        raise NotFoundError("The step was never begun.", where=request_id, found=name)
    if known.status == status and canonical_json(known.output) == canonical_json(output):
        return known
    raise ConflictError(
        "The step cannot be ended.",
        where=f"step {name} of {request_id}",
        expected=f"running under token {token}",
        found=f"{known.status} under token {known.token}",
    )


def outputs(conn: Connection, request_id: str) -> dict[str, dict[str, Any]]:
    """Step -> output, of the steps that are done, whatever their inputs were."""
    found = list_steps(conn, request_id)
    return {step.name: step.output for step in found if step.status == "done" and step.output is not None}


def list_steps(conn: Connection, request_id: str) -> list[Step]:
    """A request's steps in the order they were last begun."""
    query = select(table).where(table.c.request_id == request_id).order_by(table.c.started_at, table.c.name)
    return [_to_record(row) for row in conn.execute(query)]
