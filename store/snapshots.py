"""Published data sets, and which rows each of them holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, exists, func, select, update

from configs.errors import SnapshotError
from data_contracts.records import DatasetSnapshot
from store.erasure import INCIDENT_ROW, erased_among
from store.rows import checked, insert_into
from store.tables import feedback, incidents
from store.tables import snapshot_rows as members
from store.tables import snapshots as table


def insert(conn: Connection, snapshot: DatasetSnapshot, splits: Mapping[str, str]) -> None:
    """Record a snapshot and its rows' splits (`{row id: split}`); a digest that is there already is left as it is.

    Raises:
        SnapshotError: some rows were erased since they were read.
    """
    gone = erased_among(conn, [row_id.removeprefix(INCIDENT_ROW) for row_id in splits])
    if gone:
        raise SnapshotError(
            "rows of this snapshot were erased while it was made",
            where=snapshot.digest,
            found=f"{len(gone)} erased rows",
            fix="run the retrain again; it reads what is left",
        )
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


def split_counts(conn: Connection, digest: str) -> dict[str, int]:
    """`{split: rows}` of a snapshot, without loading them."""
    query = select(members.c.split, func.count()).where(members.c.snapshot == digest).group_by(members.c.split)
    return {split: int(n) for split, n in conn.execute(query).all()}


def some_rows(conn: Connection, digest: str, split: str, limit: int) -> list[str]:
    """The first `limit` row ids of one split, sorted."""
    query = select(members.c.row_id).where(members.c.snapshot == digest, members.c.split == split)
    return list(conn.execute(query.order_by(members.c.row_id).limit(limit)).scalars())


def splits_of_row(conn: Connection, row_id: str) -> list[tuple[str, str]]:
    """`(snapshot digest, split)` of every snapshot that held a row, oldest first; also of rows erased since."""
    query = (
        select(members.c.snapshot, members.c.split)
        .join_from(members, table, members.c.snapshot == table.c.digest)
        .where(members.c.row_id == row_id)
        .order_by(table.c.created_at, members.c.snapshot)
    )
    return [(row.snapshot, row.split) for row in conn.execute(query)]


def facts(conn: Connection, digest: str) -> dict[str, Any] | None:
    """`contract_digest`, `counts` and `erased` of a snapshot, without its row ids; None if it is not known."""
    names = ("contract_digest", "counts", "erased")
    query = select(*(table.c.record[name].label(name) for name in names)).where(table.c.digest == digest)
    row = conn.execute(query).one_or_none()
    return None if row is None else {"erased": 0, **{k: v for k, v in row._mapping.items() if v is not None}}


def replace_record(conn: Connection, snapshot: DatasetSnapshot) -> None:
    """Write what the manifest says after an erasure."""
    values = {"record": snapshot.model_dump(mode="json")}
    conn.execute(update(table).where(table.c.digest == snapshot.digest).values(values))


def digests(conn: Connection, model: str) -> list[str]:
    """A model's published snapshots, oldest first."""
    query = select(table.c.digest).where(table.c.model == model).order_by(table.c.created_at)
    return list(conn.execute(query).scalars())


def lost_rows(conn: Connection, digest: str) -> set[str]:
    """Rows of a snapshot whose feedback or incident the store no longer has."""
    of_incident = members.c.row_id.like(f"{INCIDENT_ROW}%")
    said = exists().where(feedback.c.id == members.c.row_id)
    told = exists().where(INCIDENT_ROW + incidents.c.id == members.c.row_id)
    lost: set[str] = set()
    for gone in ((~of_incident, ~said), (of_incident, ~told)):
        lost.update(conn.execute(select(members.c.row_id).where(members.c.snapshot == digest, *gone)).scalars())
    return lost


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
