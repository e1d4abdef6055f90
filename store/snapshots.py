"""Published data sets, and which rows each of them holds."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from data_contracts.records import DatasetSnapshot
from store.rows import checked, insert_into
from store.tables import snapshot_rows as members
from store.tables import snapshots as table


def insert(conn: Connection, snapshot: DatasetSnapshot, splits: Mapping[str, str]) -> None:
    """Record a snapshot and its rows' splits (`{row id: split}`); a digest that is there already is left as it is."""
    values = checked(
        table,
        {
            "digest": snapshot.digest,
            "model": snapshot.model,
            "created_at": snapshot.created_at,
            "watermark": snapshot.watermark,
            "record": snapshot.model_dump(mode="json"),
        },
    )
    conn.execute(insert_into(conn, table).values(values).on_conflict_do_nothing(index_elements=["digest"]))
    rows = [
        checked(members, {"snapshot": snapshot.digest, "row_id": row_id, "split": split})
        for row_id, split in splits.items()
    ]
    if rows:
        conn.execute(insert_into(conn, members).on_conflict_do_nothing(), rows)


def get(conn: Connection, digest: str) -> DatasetSnapshot | None:
    """One snapshot, or None."""
    record = conn.execute(select(table.c.record).where(table.c.digest == digest)).scalar_one_or_none()
    return None if record is None else DatasetSnapshot.model_validate(record)


def latest(conn: Connection, model: str) -> DatasetSnapshot | None:
    """The model's newest snapshot, or None."""
    query = select(table.c.record).where(table.c.model == model).order_by(table.c.created_at.desc()).limit(1)
    record = conn.execute(query).scalar_one_or_none()
    return None if record is None else DatasetSnapshot.model_validate(record)


def containing(conn: Connection, row_id: str) -> list[DatasetSnapshot]:
    """Snapshots that hold a row (feedback id), oldest first."""
    query = (
        select(table.c.record)
        .join_from(members, table, members.c.snapshot == table.c.digest)
        .where(members.c.row_id == row_id)
        .order_by(table.c.created_at)
    )
    return [DatasetSnapshot.model_validate(record) for record in conn.execute(query).scalars()]


def splits(conn: Connection, digest: str) -> dict[str, str]:
    """`{row id: split}` of a snapshot."""
    rows = conn.execute(select(members.c.row_id, members.c.split).where(members.c.snapshot == digest)).all()
    return {row.row_id: row.split for row in rows}


def sides(conn: Connection, model: str) -> dict[str, str]:
    """`{row id: train | target}` over all snapshots of a model; a row that ever was a target item stays one."""
    query = (
        select(members.c.row_id, members.c.split)
        .join_from(members, table, members.c.snapshot == table.c.digest)
        .where(table.c.model == model, members.c.split.in_(("train", "target")))
        .distinct()
    )
    found: dict[str, str] = {}
    for row in conn.execute(query):
        if found.get(row.row_id) != "target":
            found[row.row_id] = row.split
    return found
