"""Leases: one leader at a time, with a fencing token that only grows."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, update

from data_contracts.records import utc_now
from store.rows import checked, insert_into, wrote
from store.tables import leases as table


def acquire(conn: Connection, name: str, owner: str, ttl_s: float, now: datetime | None = None) -> int | None:
    """Take or renew a lease for `ttl_s` seconds.

    Returns:
        The fencing token: the same on a renewal, a higher one for a new holder; None if somebody else holds it.
    """
    now = now or utc_now()
    until = now + timedelta(seconds=ttl_s)
    renewed = conn.execute(
        update(table).where(table.c.name == name, table.c.owner == owner).values(until=until).returning(table.c.token)
    ).scalar_one_or_none()
    if renewed is not None:
        return int(renewed)
    taken = conn.execute(
        update(table)
        .where(table.c.name == name, table.c.until < now)
        .values(owner=owner, token=table.c.token + 1, until=until)
        .returning(table.c.token)
    ).scalar_one_or_none()
    if taken is not None:
        return int(taken)
    values = checked(table, {"name": name, "owner": owner, "token": 1, "until": until})
    free = insert_into(conn, table).values(values).on_conflict_do_nothing(index_elements=["name"])
    return 1 if wrote(conn, free) else None


def release(conn: Connection, name: str, owner: str) -> None:
    """Give a lease back if `owner` holds it; the next holder's token is higher."""
    free = utc_now() - timedelta(days=1)
    conn.execute(update(table).where(table.c.name == name, table.c.owner == owner).values(owner="", until=free))
