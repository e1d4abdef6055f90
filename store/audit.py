"""The audit log: one hash chain, appended in the caller's transaction.

An entry's hash covers its facts and the hash before it, so a changed, removed or inserted entry breaks the chain;
the counter tells when the end was cut off. Details hold ids and digests, never text.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, select

from configs.errors import StoreError
from data_contracts.digests import canonical_json, digest
from data_contracts.records import AuditEntry, utc_now
from store.rows import checked, take
from store.tables import audit as table
from store.tables import counters

GENESIS = "0" * 64


def _to_record(row: Row[Any]) -> AuditEntry:
    return AuditEntry.model_validate(dict(row._mapping))


def _hash(values: dict[str, Any]) -> str:
    return digest({key: value for key, value in values.items() if key != "hash"})


def append(conn: Connection, actor: str, action: str, subject: str, detail: dict[str, Any]) -> AuditEntry:
    """Add an entry at the end of the chain; other writers of the log wait until this transaction ends."""
    seq = take(conn, "audit", 1)
    previous = conn.execute(select(table.c.hash).where(table.c.seq == seq - 1)).scalar_one_or_none()
    values = {
        "seq": seq,
        "at": utc_now(),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": json.loads(canonical_json(detail)),
        "previous": previous or GENESIS,
    }
    values = checked(table, {**values, "hash": _hash(values)})
    conn.execute(table.insert().values(values))
    return AuditEntry.model_validate(values)


def entries(conn: Connection, limit: int = 200) -> list[AuditEntry]:
    """The newest entries, newest first."""
    return [_to_record(row) for row in conn.execute(select(table).order_by(table.c.seq.desc()).limit(limit))]


def verify(conn: Connection) -> int:
    """Check every link; returns the number of entries.

    Raises:
        StoreError: names the first entry that is missing or was changed.
    """
    previous, checked_rows = GENESIS, 0
    for row in conn.execute(select(table).order_by(table.c.seq)):
        entry = _to_record(row)
        expected = checked_rows + 1
        if entry.seq != expected:
            raise _broken(expected, f"entry {expected}", f"entry {entry.seq}")
        if entry.previous != previous:
            raise _broken(expected, f"previous hash {previous}", entry.previous)
        computed = _hash(entry.model_dump())
        if computed != entry.hash:
            raise _broken(expected, f"hash {computed}", entry.hash)
        previous, checked_rows = entry.hash, expected
    last = int(conn.execute(select(counters.c.value).where(counters.c.name == "audit")).scalar_one())
    if last != checked_rows:
        raise _broken(checked_rows + 1, f"{last} entries", f"{checked_rows} entries")
    return checked_rows


def _broken(seq: int, expected: str, found: str) -> StoreError:
    return StoreError(
        "The audit log was tampered with.",
        where=f"audit entry {seq}",
        expected=expected,
        found=found,
        fix="compare with a backup; decisions from this entry on cannot be trusted",
    )
