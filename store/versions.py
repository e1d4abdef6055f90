"""Registered versions: what may be served, where its files are and who approved it."""

from __future__ import annotations

from sqlalchemy import Connection, select

from configs.errors import ConflictError
from data_contracts.records import AdapterRef, ModelVersion, utc_now
from store.erasure import taint_if_taught
from store.rows import checked, insert_into
from store.tables import versions as table


def insert(
    conn: Connection, version: ModelVersion, *, adapter_path: str, request_id: str | None, approved_by: str
) -> None:
    """Record a version. Recording it again is not an error; one taught by rows erased meanwhile is marked tainted.

    Raises:
        ConflictError: the name belongs to another adapter; names are immutable.
    """
    values = {
        "name": version.name,
        "model": version.model,
        "number": version.number,
        "adapter_digest": version.adapter_digest,
        "dataset_digest": version.dataset_digest,
        "request_id": request_id,
        "created_at": utc_now(),
        "adapter_path": adapter_path,
        "approved_by": approved_by,
        "record": version.model_dump(mode="json"),
    }
    conn.execute(
        insert_into(conn, table).values(checked(table, values)).on_conflict_do_nothing(index_elements=["name"])
    )
    taint_if_taught(conn, version.name, version.dataset_digest)
    stored = get(conn, version.name)
    if stored is not None and stored.adapter_digest != version.adapter_digest:
        raise ConflictError(
            "A version's name belongs to another adapter.",
            where=version.name,
            expected=f"adapter {stored.adapter_digest}",
            found=f"adapter {version.adapter_digest}",
            fix="register under a new number",
        )


def get(conn: Connection, name: str) -> ModelVersion | None:
    """One version by its name `model@vN`, or None."""
    record = conn.execute(select(table.c.record).where(table.c.name == name)).scalar_one_or_none()
    return None if record is None else ModelVersion.model_validate(record)


def by_digest(conn: Connection, adapter_digest: str) -> ModelVersion | None:
    """The newest version with this adapter, or None."""
    query = select(table.c.record).where(table.c.adapter_digest == adapter_digest)
    record = conn.execute(query.order_by(table.c.number.desc()).limit(1)).scalar_one_or_none()
    return None if record is None else ModelVersion.model_validate(record)


def list_versions(conn: Connection, model: str) -> list[ModelVersion]:
    """A model's versions, newest first."""
    query = select(table.c.record).where(table.c.model == model).order_by(table.c.number.desc())
    return [ModelVersion.model_validate(record) for record in conn.execute(query).scalars()]


def adapter_ref(conn: Connection, name: str) -> AdapterRef | None:
    """What an engine needs to load the version, or None if there is no such version."""
    row = conn.execute(select(table.c.record, table.c.adapter_path).where(table.c.name == name)).one_or_none()
    if row is None:
        return None
    version = ModelVersion.model_validate(row.record)
    return AdapterRef(
        version=version.name, digest=version.adapter_digest, path=row.adapter_path, base_digest=version.base_digest
    )


def approved_by(conn: Connection, name: str) -> str | None:
    """`gate`, or the name recorded with an override; None if there is no such version."""
    return conn.execute(select(table.c.approved_by).where(table.c.name == name)).scalar_one_or_none()


def request_of(conn: Connection, name: str) -> str | None:
    """The retrain request that made the version, or None."""
    return conn.execute(select(table.c.request_id).where(table.c.name == name)).scalar_one_or_none()


def teaching(conn: Connection, dataset_digest: str) -> list[ModelVersion]:
    """Versions trained on a snapshot, oldest first."""
    query = select(table.c.record).where(table.c.dataset_digest == dataset_digest).order_by(table.c.created_at)
    return [ModelVersion.model_validate(record) for record in conn.execute(query).scalars()]
