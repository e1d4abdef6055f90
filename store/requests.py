"""Retrain requests: one open per model, claimed by one run at a time under a lease with a fencing token."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from configs.errors import ConflictError, NotFoundError, StaleTokenError
from data_contracts.digests import digest
from data_contracts.ids import new_id
from data_contracts.records import Cause, RetrainRequest, utc_now
from store.rows import checked, locked
from store.tables import requests as table
from store.tables import steps

_COLUMNS = tuple(c for c in table.c if c.name != "open")
_TRIES = 200


def _to_record(row: Row[Any]) -> RetrainRequest:
    return RetrainRequest.model_validate({c.name: row._mapping[c.name] for c in _COLUMNS})


def open_or_attach(
    conn: Connection, model: str, cause: Cause, *, status: Literal["waiting", "ready"] = "waiting"
) -> tuple[RetrainRequest, bool]:
    """Open a request for a model, or attach the cause to the one that is open.

    The same cause (kind and detail) attaches once. `status="ready"` also lifts an open request that waits.

    Returns:
        The request, and True if it was created.
    """
    for _ in range(_TRIES):
        row = conn.execute(locked(conn, select(*_COLUMNS).where(table.c.model == model, table.c.open))).one_or_none()
        if row is not None:
            return _attach(conn, _to_record(row), cause, status), False
        now = utc_now()
        newest = select(func.coalesce(func.max(table.c.number), 0)).where(table.c.model == model)
        record = RetrainRequest(
            id=new_id(),
            model=model,
            number=int(conn.execute(newest).scalar_one()) + 1,
            status=status,
            causes=(cause,),
            created_at=now,
            updated_at=now,
        )
        values = {**record.model_dump(mode="python"), "causes": [cause.model_dump(mode="json")], "open": True}
        try:
            with conn.begin_nested():
                conn.execute(table.insert().values(checked(table, values)))
        except IntegrityError:
            continue  # another caller was quicker: attach to theirs
        return record, True
    raise ConflictError("A retrain request could not be opened.", where=model, fix="try again")


def _attach(conn: Connection, record: RetrainRequest, cause: Cause, status: str) -> RetrainRequest:
    known = {digest([c.kind, c.detail]) for c in record.causes}
    new_cause = digest([cause.kind, cause.detail]) not in known
    lift = status == "ready" and record.status == "waiting"
    if not new_cause and not lift:
        return record
    record = record.model_copy(
        update={
            "causes": (*record.causes, cause) if new_cause else record.causes,
            "status": "ready" if lift else record.status,
            "updated_at": utc_now(),
        }
    )
    conn.execute(
        update(table)
        .where(table.c.id == record.id)
        .values(
            causes=[c.model_dump(mode="json") for c in record.causes],
            status=record.status,
            updated_at=record.updated_at,
        )
    )
    return record


def get(conn: Connection, id: str) -> RetrainRequest | None:
    """One request, or None."""
    row = conn.execute(select(*_COLUMNS).where(table.c.id == id)).one_or_none()
    return None if row is None else _to_record(row)


def current(conn: Connection, model: str) -> RetrainRequest | None:
    """The model's open request, or None."""
    row = conn.execute(select(*_COLUMNS).where(table.c.model == model, table.c.open)).one_or_none()
    return None if row is None else _to_record(row)


def list_requests(conn: Connection, model: str, limit: int = 50) -> list[RetrainRequest]:
    """The model's requests, newest first."""
    query = select(*_COLUMNS).where(table.c.model == model).order_by(table.c.number.desc()).limit(limit)
    return [_to_record(row) for row in conn.execute(query)]


def set_ready(conn: Connection, id: str) -> bool:
    """waiting -> ready; False if it was not waiting (any more)."""
    statement = update(table).where(table.c.id == id, table.c.status == "waiting")
    return conn.execute(statement.values(status="ready", updated_at=utc_now())).rowcount == 1


def claim(conn: Connection, id: str, owner: str, lease_s: float, now: datetime | None = None) -> RetrainRequest | None:
    """Take a ready request, or one whose lease has run out; None if somebody else has it or it is closed.

    Every claim raises `attempt` and `token`; a worker with an older token is refused from then on.
    """
    now = now or utc_now()
    row = conn.execute(
        update(table)
        .where(table.c.id == id)
        .where(or_(table.c.status == "ready", and_(table.c.status == "claimed", table.c.lease_until < now)))
        .values(
            status="claimed",
            owner=owner,
            attempt=table.c.attempt + 1,
            token=table.c.token + 1,
            lease_until=now + timedelta(seconds=lease_s),
            updated_at=now,
        )
        .returning(*_COLUMNS)
    ).one_or_none()
    return None if row is None else _to_record(row)


def renew(conn: Connection, id: str, token: int, lease_s: float) -> None:
    """Prolong a claim.

    Raises:
        StaleTokenError: the claim was taken over or has ended.
    """
    now = utc_now()
    renewed = conn.execute(
        update(table)
        .where(table.c.id == id, table.c.token == token, table.c.status == "claimed")
        .values(lease_until=now + timedelta(seconds=lease_s), updated_at=now)
    ).rowcount
    if renewed != 1:
        raise _stale(conn, id, token)


def check_token(conn: Connection, id: str, token: int) -> None:
    """Make sure the claim is still this worker's; in a writing transaction it stays so until the end of it.

    Raises:
        StaleTokenError: the claim was taken over or has ended.
    """
    query = select(table.c.id).where(table.c.id == id, table.c.token == token, table.c.status == "claimed")
    if conn.execute(locked(conn, query)).one_or_none() is None:
        raise _stale(conn, id, token)


def _stale(conn: Connection, id: str, token: int) -> StaleTokenError | NotFoundError:
    record = get(conn, id)
    if record is None:
        return NotFoundError("There is no such retrain request.", where="retrain_requests", found=id)
    return StaleTokenError(
        "The claim on a retrain request is no longer this worker's.",
        where=f"retrain request #{record.number} ({id})",
        expected=f"claimed with token {token}",
        found=f"{record.status} with token {record.token}",
        fix="stop this worker; the request goes on elsewhere or has ended",
    )


def finish(
    conn: Connection, id: str, token: int, status: Literal["done", "failed"], outcome: str, detail: str = ""
) -> None:
    """Close a claimed request. Finishing again with the same words is not an error.

    Raises:
        StaleTokenError: the claim was taken over or has ended otherwise.
    """
    closed = conn.execute(
        update(table)
        .where(table.c.id == id, table.c.token == token, table.c.status == "claimed")
        .values(
            **checked(table, {"status": status, "outcome": outcome, "detail": detail}),
            open=False,
            lease_until=None,
            updated_at=utc_now(),
        )
    ).rowcount
    if closed == 1:
        return
    record = get(conn, id)
    if record is None or (record.token, record.status, record.outcome) != (token, status, outcome):
        raise _stale(conn, id, token)


def cancel(conn: Connection, id: str) -> RetrainRequest:
    """Close an open request whoever has it; its worker's token becomes stale.

    Raises:
        NotFoundError: no such request.
        ConflictError: it is closed already.
    """
    row = conn.execute(
        update(table)
        .where(table.c.id == id, table.c.open)
        .values(
            status="cancelled",
            outcome="aborted",
            open=False,
            token=table.c.token + 1,
            lease_until=None,
            updated_at=utc_now(),
        )
        .returning(*_COLUMNS)
    ).one_or_none()
    if row is not None:
        return _to_record(row)
    record = get(conn, id)
    if record is None:
        raise NotFoundError("There is no such retrain request.", where="retrain_requests", found=id)
    raise ConflictError(
        "The retrain request is closed already.",
        where=f"retrain request #{record.number} ({id})",
        expected="waiting, ready or claimed",
        found=record.status,
    )


def expired(conn: Connection, model: str, now: datetime | None = None) -> RetrainRequest | None:
    """The model's claimed request if its lease has run out, or None."""
    row = conn.execute(
        select(*_COLUMNS).where(
            table.c.model == model, table.c.status == "claimed", table.c.lease_until < (now or utc_now())
        )
    ).one_or_none()
    return None if row is None else _to_record(row)


def restart(conn: Connection, id: str) -> bool:
    """Send an open request back to its beginning: what its worker holds is void, its token stale, its steps forgotten.

    Returns:
        False if the request is not open, or no worker has begun with it.
    """
    row = conn.execute(locked(conn, select(*_COLUMNS).where(table.c.id == id, table.c.open))).one_or_none()
    if row is None or _to_record(row).attempt == 0:
        return False
    conn.execute(steps.delete().where(steps.c.request_id == id))
    conn.execute(
        update(table)
        .where(table.c.id == id)
        .values(status="ready", owner="", token=table.c.token + 1, lease_until=None, updated_at=utc_now())
    )
    return True


def current_locked(conn: Connection, model: str) -> RetrainRequest | None:
    """The model's open request, which nobody else can claim or close before this transaction ends."""
    row = conn.execute(locked(conn, select(*_COLUMNS).where(table.c.model == model, table.c.open))).one_or_none()
    return None if row is None else _to_record(row)
