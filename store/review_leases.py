"""Lending review items: one live lease per item, with a token a label needs.

An expired lease needs no sweeper: it no longer counts. On PostgreSQL labellers pass over each other's locks; on SQLite
writers are alone anyway.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, select, update

from data_contracts.records import ReviewLease, utc_now
from store.reviews import LABELLING, ORDER, Role
from store.rows import WRITE_OPTION, checked, chunks, insert_into, wrote
from store.tables import review_items as items
from store.tables import review_labels as labels
from store.tables import review_leases as leases
from store.tables import review_links as links


def lease_next(
    conn: Connection,
    model: str,
    labeller: str,
    *,
    lease_s: float,
    role: Role = "label",
    kinds: Collection[str] = (),
    gold_share: float = 0.0,
    key: bytes = b"",
    exclude: Collection[str] = (),
    now: datetime | None = None,
) -> ReviewLease | None:
    """Lend the next item to a labeller: their own live lease renewed, else a gold item in turn, else the first in line.

    Args:
        conn: a writing connection.
        model: whose queue.
        labeller: a principal; never gets what they labelled before or what shows their own words.
        lease_s: how long it is lent.
        role: `label` for an independent label, `adjudicate` for items whose labels differ.
        kinds: only these kinds; no gold is mixed in then.
        gold_share: share of turns that are gold, decided by HMAC(key, labeller, number of labels so far): the same
            however often one asks, and not to be foretold without the key.
        key: this installation's secret.
        exclude: ids to pass over (skipped in this sitting).
        now: for tests.
    """
    now = now or utc_now()
    until = now + timedelta(seconds=lease_s)
    statuses = ("adjudicate",) if role == "adjudicate" else LABELLING
    mine = _own_lease(conn, model, labeller, statuses, kinds, exclude, now)
    if mine is not None:
        conn.execute(update(leases).where(leases.c.item == mine.item).values(until=until))
        return mine.model_copy(update={"until": until})
    if role == "label" and not kinds and _gold_turn(conn, model, labeller, gold_share, key):
        for id in _gold_order(conn, model, labeller, key, exclude, now):
            taken = _take(conn, id, labeller, now, until)
            if taken is not None:
                return taken
    return _first(conn, model, labeller, statuses, kinds, exclude, now, until)


def _first(
    conn: Connection,
    model: str,
    labeller: str,
    statuses: Sequence[str],
    kinds: Collection[str],
    exclude: Collection[str],
    now: datetime,
    until: datetime,
) -> ReviewLease | None:
    """Lend the first item in line."""
    lost: list[str] = []
    while True:
        query = _waiting(conn, model, labeller, statuses, [*exclude, *lost], now).order_by(*ORDER).limit(1)
        query = query.where(items.c.kind.in_(kinds) if kinds else items.c.kind != "gold")
        found = conn.execute(query).scalar_one_or_none()
        if found is None:
            return None
        taken = _take(conn, found, labeller, now, until)
        if taken is not None:
            return taken
        # On PostgreSQL somebody's lease was committed between our look and our lock: not this one, then.
        lost.append(found)


def lend(conn: Connection, model: str, borrower: str, *, lease_s: float) -> ReviewLease | None:
    """Lend the next item that wants a label to another system, besides those it has already."""
    now = utc_now()
    return _first(conn, model, borrower, LABELLING, (), (), now, now + timedelta(seconds=lease_s))


def take_over(conn: Connection, item: str, labeller: str, borrower: str, *, lease_s: float) -> ReviewLease | None:
    """Pass an item that is free, or lent to `borrower`, on to a labeller; None if somebody else has it, if it wants no
    label, or if it shows this person's own words.
    """
    now = utc_now()
    own = exists().where(links.c.item == items.c.id, links.c.kind == "person", links.c.value == labeller)
    query = select(items.c.id).where(items.c.id == item, items.c.status.in_(LABELLING), ~own).with_for_update()
    if conn.execute(query).one_or_none() is None:
        return None
    conn.execute(delete(leases).where(leases.c.item == item, leases.c.labeller == borrower))
    return _take(conn, item, labeller, now, now + timedelta(seconds=lease_s))


def return_all(conn: Connection, ids: Collection[str], borrower: str) -> None:
    """End the leases of a borrower on these items."""
    for part in chunks(ids):
        conn.execute(delete(leases).where(leases.c.item.in_(part), leases.c.labeller == borrower))


def _waiting(
    conn: Connection, model: str, labeller: str, statuses: Sequence[str], exclude: Sequence[str], now: datetime
) -> Select[Any]:
    """Ids of items this labeller may have now. PostgreSQL locks what it finds and passes over what others lock."""
    query = select(items.c.id).where(
        items.c.model == model,
        items.c.status.in_(statuses),
        ~exists().where(leases.c.item == items.c.id, leases.c.until > now),
        ~exists().where(labels.c.item == items.c.id, labels.c.labeller == labeller),
        ~exists().where(links.c.item == items.c.id, links.c.kind == "person", links.c.value == labeller),
    )
    if exclude:
        query = query.where(items.c.id.not_in(exclude))
    if conn.get_execution_options().get(WRITE_OPTION):
        query = query.with_for_update(of=items, skip_locked=True)
    return query


def _take(conn: Connection, item: str, labeller: str, now: datetime, until: datetime) -> ReviewLease | None:
    lease = ReviewLease(item=item, labeller=labeller, token=secrets.token_hex(12), until=until)
    statement = insert_into(conn, leases).values(checked(leases, lease.model_dump(mode="python")))
    new = {name: statement.excluded[name] for name in ("labeller", "token", "until")}
    took = wrote(conn, statement.on_conflict_do_update(index_elements=["item"], set_=new, where=leases.c.until <= now))
    return lease if took else None


def _own_lease(
    conn: Connection,
    model: str,
    labeller: str,
    statuses: Sequence[str],
    kinds: Collection[str],
    exclude: Collection[str],
    now: datetime,
) -> ReviewLease | None:
    query = (
        select(*leases.c)
        .join_from(leases, items, leases.c.item == items.c.id)
        .where(leases.c.labeller == labeller, leases.c.until > now)
        .where(items.c.model == model, items.c.status.in_(statuses))
        .order_by(leases.c.until, leases.c.item)
        .limit(1)
    )
    if kinds:
        query = query.where(items.c.kind.in_(kinds))
    if exclude:
        query = query.where(items.c.id.not_in(exclude))
    row = conn.execute(query).one_or_none()
    return None if row is None else ReviewLease.model_validate(dict(row._mapping))


def _keyed(key: bytes, *parts: str) -> bytes:
    return hmac.new(key, "\0".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256).digest()


def _gold_turn(conn: Connection, model: str, labeller: str, share: float, key: bytes) -> bool:
    query = select(func.count()).select_from(labels.join(items, labels.c.item == items.c.id))
    done = conn.execute(query.where(items.c.model == model, labels.c.labeller == labeller)).scalar_one()
    return int.from_bytes(_keyed(key, "gold turn", model, labeller, str(done))[:8], "big") < share * 2**64


def _gold_order(
    conn: Connection, model: str, labeller: str, key: bytes, exclude: Collection[str], now: datetime
) -> list[str]:
    """Gold items this labeller has not seen, in an order of their own."""
    query = _waiting(conn, model, labeller, LABELLING, list(exclude), now).where(items.c.kind == "gold")
    ids = [str(id) for id in conn.execute(query).scalars()]
    return sorted(ids, key=lambda id: _keyed(key, "gold order", labeller, id))


def give_back(conn: Connection, item: str, labeller: str, token: str) -> None:
    """End a lease without a label; one that is over already is no matter."""
    conn.execute(delete(leases).where(leases.c.item == item, leases.c.labeller == labeller, leases.c.token == token))


def live_leases(conn: Connection, model: str, now: datetime | None = None) -> list[ReviewLease]:
    """Items that are lent out now."""
    query = (
        select(*leases.c)
        .join_from(leases, items, leases.c.item == items.c.id)
        .where(items.c.model == model, leases.c.until > (now or utc_now()))
        .order_by(leases.c.until, leases.c.item)
    )
    return [ReviewLease.model_validate(dict(row._mapping)) for row in conn.execute(query)]
