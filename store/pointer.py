"""The serving pointer: one row per model, changed by compare-and-set; every revision is kept."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select, update

from configs.errors import ConflictError
from data_contracts.records import Arm, RoutePointer, utc_now
from store.rows import checked, insert_into, wrote
from store.tables import pointers as table
from store.tables import route_revisions as history


def get(conn: Connection, model: str) -> RoutePointer:
    """The pointer as it stands; a model never routed serves the base, revision 0."""
    record = conn.execute(select(table.c.record).where(table.c.model == model)).scalar_one_or_none()
    return RoutePointer(model=model, revision=0, champion=Arm()) if record is None else _to_record(record)


def _to_record(record: dict[str, object]) -> RoutePointer:
    return RoutePointer.model_validate(record)


def compare_and_set(conn: Connection, pointer: RoutePointer, *, expected_revision: int, reason: str) -> RoutePointer:
    """Put `pointer` in place as revision `expected_revision` + 1, if nobody changed it in between.

    Returns:
        The pointer with its new revision.

    Raises:
        ConflictError: the stored revision is another one.
    """
    pointer = pointer.model_copy(update={"revision": expected_revision + 1})
    now = utc_now()
    values = checked(
        table,
        {
            "model": pointer.model,
            "revision": pointer.revision,
            "record": pointer.model_dump(mode="json"),
            "updated_at": now,
        },
    )
    changed = update(table).where(table.c.model == pointer.model, table.c.revision == expected_revision)
    first = insert_into(conn, table).values(values).on_conflict_do_nothing(index_elements=["model"])
    done = conn.execute(changed.values(values)).rowcount == 1 or (expected_revision == 0 and wrote(conn, first))
    if not done:
        raise ConflictError(
            "The serving pointer was changed by somebody else.",
            where=pointer.model,
            expected=f"revision {expected_revision}",
            found=f"revision {get(conn, pointer.model).revision}",
            fix="read the pointer again and decide anew",
        )
    conn.execute(
        history.insert().values(
            checked(
                history,
                {
                    "model": pointer.model,
                    "revision": pointer.revision,
                    "record": pointer.model_dump(mode="json"),
                    "at": now,
                    "reason": reason,
                },
            )
        )
    )
    return pointer


def revisions(conn: Connection, model: str) -> list[tuple[RoutePointer, datetime, str]]:
    """`(pointer, when, why)` of every change, oldest first."""
    query = select(history.c.record, history.c.at, history.c.reason).where(history.c.model == model)
    return [(_to_record(r.record), r.at, r.reason) for r in conn.execute(query.order_by(history.c.revision))]
