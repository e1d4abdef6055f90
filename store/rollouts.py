"""Canaries and their evidence: one open rollout per model, each user's first bad event counted once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy import update as sql_update
from sqlalchemy.exc import IntegrityError

from configs.errors import ConflictError, NotFoundError
from data_contracts.records import OPEN_ROLLOUT_STATES, Rollout, utc_now
from store.rows import checked, insert_into, wrote
from store.tables import rollout_evidence as evidence
from store.tables import rollout_state as states
from store.tables import rollouts as table


def _values(rollout: Rollout) -> dict[str, Any]:
    return checked(
        table,
        {
            "id": rollout.id,
            "model": rollout.model,
            "state": rollout.state,
            "open": rollout.state in OPEN_ROLLOUT_STATES,
            "request_id": rollout.request_id,
            "created_at": rollout.created_at,
            "record": rollout.model_dump(mode="json"),
        },
    )


def create(conn: Connection, rollout: Rollout) -> None:
    """Record a new rollout.

    Raises:
        ConflictError: the model has an open one, or the id is taken.
    """
    try:
        with conn.begin_nested():
            conn.execute(table.insert().values(_values(rollout)))
    except IntegrityError:
        other = current(conn, rollout.model)
        raise ConflictError(
            "The model has an open rollout.",
            where=rollout.model,
            expected="no open rollout",
            found="the same id" if other is None else f"{other.id} ({other.candidate.version}, {other.state})",
            fix="wait for its decision, or abort it",
        ) from None


def get(conn: Connection, id: str) -> Rollout | None:
    """One rollout, or None."""
    record = conn.execute(select(table.c.record).where(table.c.id == id)).scalar_one_or_none()
    return None if record is None else Rollout.model_validate(record)


def current(conn: Connection, model: str) -> Rollout | None:
    """The model's open rollout, or None."""
    query = select(table.c.record).where(table.c.model == model, table.c.open)
    record = conn.execute(query).scalar_one_or_none()
    return None if record is None else Rollout.model_validate(record)


def update(conn: Connection, rollout: Rollout) -> None:
    """Write an open rollout's new state; one that is closed stays as it is.

    Raises:
        NotFoundError: no such rollout.
        ConflictError: it was closed already (for example aborted by a person in between).
    """
    changed = conn.execute(
        sql_update(table).where(table.c.id == rollout.id, table.c.open).values(_values(rollout))
    ).rowcount
    if changed == 1:
        return
    stored = get(conn, rollout.id)
    if stored is None:
        raise NotFoundError("There is no such rollout.", where="rollouts", found=rollout.id)
    if stored != rollout:
        raise ConflictError(
            "The rollout is closed already.",
            where=rollout.id,
            expected="pending or running",
            found=stored.state,
            fix="read the rollout again",
        )


def list_rollouts(conn: Connection, model: str, limit: int = 50) -> list[Rollout]:
    """The model's rollouts, newest first."""
    query = select(table.c.record).where(table.c.model == model)
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    return [Rollout.model_validate(record) for record in conn.execute(query).scalars()]


def by_request(conn: Connection, request_id: str) -> Rollout | None:
    """The newest rollout a retrain request led to, or None."""
    query = select(table.c.record).where(table.c.request_id == request_id)
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(1)
    record = conn.execute(query).scalar_one_or_none()
    return None if record is None else Rollout.model_validate(record)


def first_bad(conn: Connection, rollout_id: str, metric: str, principal: str, arm: str, seq: int, q: float) -> bool:
    """Record a user's bad event; True if it is their first for this metric in this rollout, whichever arm.

    Args:
        conn: a writing connection.
        rollout_id: the rollout.
        metric: the bad event, for example `thumbs_down`.
        principal: the user.
        arm: `champion` or `canary`, where it happened.
        seq: commit number of the event.
        q: the canary's share when the request was routed.
    """
    values = checked(
        evidence,
        {
            "rollout_id": rollout_id,
            "metric": metric,
            "principal": principal,
            "arm": arm,
            "seq": seq,
            "q": q,
        },
    )
    return wrote(conn, insert_into(conn, evidence).values(values).on_conflict_do_nothing())


def state(conn: Connection, rollout_id: str) -> tuple[int, dict[str, Any], list[Any]]:
    """`(watermark, e-values and counters, history)`; `(0, {}, [])` before the first fold."""
    row = conn.execute(select(states).where(states.c.rollout_id == rollout_id)).one_or_none()
    return (0, {}, []) if row is None else (row.watermark, row.state, row.history)


def save_state(conn: Connection, rollout_id: str, watermark: int, state: dict[str, Any], history: list[Any]) -> None:
    """Write the folded evidence and the watermark it reaches.

    Raises:
        ConflictError: a later watermark is stored; another controller has gone on.
    """
    statement = insert_into(conn, states)
    fresh = {"watermark": watermark, "state": state, "history": history, "updated_at": utc_now()}
    statement = statement.values(checked(states, {"rollout_id": rollout_id, **fresh})).on_conflict_do_update(
        index_elements=["rollout_id"], set_=fresh, where=states.c.watermark <= watermark
    )
    if not wrote(conn, statement):
        raise ConflictError(
            "The rollout's evidence was folded further by another controller.", where=rollout_id, found=watermark
        )


def detach(conn: Connection, request_id: str) -> int:
    """Untie a retrain request's rollouts from it: the request begins anew and will ask for one of its own."""
    rows = conn.execute(select(table.c.id, table.c.record).where(table.c.request_id == request_id)).all()
    for row in rows:
        values = {"request_id": None, "record": {**row.record, "request_id": None}}
        conn.execute(sql_update(table).where(table.c.id == row.id).values(values))
    return len(rows)
