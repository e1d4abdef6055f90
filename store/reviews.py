"""The review queue: items and their labels (`store.review_leases` lends the items).

What a set of labels means (agreed, to be adjudicated) is decided by `data_contracts.review`; here is what must hold
whoever asks: one item per subject, one label per person and item, and no label without the live lease's token.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, delete, exists, func, or_, select, update

from configs.errors import ConflictError, NotFoundError, StaleTokenError
from data_contracts.records import (
    ReviewAnswer,
    ReviewItem,
    ReviewLabel,
    ReviewStatus,
    ReviewVerdict,
    utc_now,
)
from store.rows import checked, chunks, insert_into, take
from store.tables import review_items as items
from store.tables import review_labels as labels
from store.tables import review_leases as leases
from store.tables import review_links as links

ITEM_COLUMNS = tuple(c for c in items.c if c.name != "updated_at")
ANSWER_COLUMNS = tuple(labels.c[name] for name in ("verdict", "text", "severity", "root_cause", "note"))
LABELLING = ("open", "labelled")
"""Statuses of items that want a first or a second independent label."""
Role = Literal["label", "adjudicate"]
ORDER = (items.c.priority.desc(), items.c.created_at, items.c.id)
"""In which order items are handed out."""


def new_item_id() -> str:
    """`rv-` and 64 random bits: nothing about an item, such as being gold, can be told from its id."""
    return "rv-" + secrets.token_hex(8)


def _item(row: Row[Any]) -> ReviewItem:
    return ReviewItem.model_validate({c.name: row._mapping[c.name] for c in ITEM_COLUMNS})


def _label(row: Row[Any]) -> ReviewLabel:
    values = row._mapping
    answer = {c.name: values[c.name] for c in ANSWER_COLUMNS}
    return ReviewLabel.model_validate(
        {**{n: values[n] for n in ("item", "labeller", "role", "at")}, "answer": answer},
    )


# --- items ----------------------------------------------------------------------------------------


def add(conn: Connection, item: ReviewItem, *, people: Iterable[str] = (), about: Iterable[str] = ()) -> bool:
    """Add an item; one of the same kind and subject is left as it is, but a withdrawn one opens again.

    Args:
        item: with an id of `new_item_id`.
        people: principals whose words it shows; they are never asked about it, and erasing one removes it.
        about: ids of rows, requests and incidents it shows; the subject always counts.

    Returns:
        True if there is now an open item that was not there before.

    Raises:
        InputError: a text the store cannot hold.
    """
    now = utc_now()
    values = checked(items, {**item.model_dump(mode="json"), "created_at": item.created_at, "updated_at": now})
    statement = insert_into(conn, items).values(values)
    again = {n: statement.excluded[n] for n in ("payload", "priority", "reason", "labels_wanted", "updated_at")}
    done = conn.execute(
        statement.on_conflict_do_update(
            index_elements=["kind", "subject"],
            set_={**again, "status": "open"},
            where=items.c.status == "withdrawn",
        ).returning(items.c.id)
    ).scalar_one_or_none()
    if done is None:
        return False
    named = [("person", p) for p in people if p] + [("about", a) for a in (item.subject, *about) if a]
    rows = [checked(links, {"item": done, "kind": kind, "value": value}) for kind, value in dict.fromkeys(named)]
    conn.execute(insert_into(conn, links).on_conflict_do_nothing(), rows)
    return True


def get(conn: Connection, id: str) -> ReviewItem:
    """One item.

    Raises:
        NotFoundError: there is none of that id.
    """
    row = conn.execute(select(*ITEM_COLUMNS).where(items.c.id == id)).one_or_none()
    if row is None:
        raise _missing(id)
    return _item(row)


def find(conn: Connection, kind: str, subject: str) -> ReviewItem | None:
    """The item about something, or None."""
    row = conn.execute(select(*ITEM_COLUMNS).where(items.c.kind == kind, items.c.subject == subject)).one_or_none()
    return None if row is None else _item(row)


def queued(conn: Connection, kind: str, subjects: Collection[str]) -> set[str]:
    """Those of `subjects` that have an item of this kind which was not withdrawn."""
    found: set[str] = set()
    for part in chunks(subjects):
        query = select(items.c.subject).where(items.c.kind == kind, items.c.subject.in_(part))
        found.update(conn.execute(query.where(items.c.status != "withdrawn")).scalars())
    return found


def open_among(conn: Connection, ids: Collection[str]) -> set[str]:
    """Those of `ids` that are items which are neither done nor withdrawn, gold ones too."""
    found: set[str] = set()
    for part in chunks(ids):
        query = select(items.c.id).where(items.c.id.in_(part), items.c.status.in_((*LABELLING, "adjudicate")))
        found.update(conn.execute(query).scalars())
    return found


def people(conn: Connection, id: str) -> list[str]:
    """Principals whose words an item shows."""
    query = select(links.c.value).where(links.c.item == id, links.c.kind == "person").order_by(links.c.value)
    return list(conn.execute(query).scalars())


def _missing(id: str) -> NotFoundError:
    return NotFoundError(
        "There is no such review item.", where="review_items", found=id, fix="`tidemill review list` names them"
    )


def list_items(
    conn: Connection,
    model: str,
    *,
    kinds: Collection[str] = (),
    statuses: Collection[str] = (),
    limit: int | None = None,
) -> list[ReviewItem]:
    """A model's items of some kinds and statuses (all if empty), in the order labellers get them."""
    query = select(*ITEM_COLUMNS).where(items.c.model == model)
    if kinds:
        query = query.where(items.c.kind.in_(kinds))
    if statuses:
        query = query.where(items.c.status.in_(statuses))
    return [_item(row) for row in conn.execute(query.order_by(*ORDER).limit(limit))]


def counts(conn: Connection, model: str) -> list[tuple[str, str, int]]:
    """`(kind, status, number)` of a model's items."""
    query = select(items.c.kind, items.c.status, func.count()).where(items.c.model == model)
    rows = conn.execute(query.group_by(items.c.kind, items.c.status).order_by(items.c.kind, items.c.status))
    return [(kind, status, int(n)) for kind, status, n in rows]


def open_subjects(conn: Connection, model: str) -> list[tuple[str, str, str]]:
    """`(id, kind, subject)` of all items that are not done, withdrawn or gold."""
    query = select(items.c.id, items.c.kind, items.c.subject).where(
        items.c.model == model, items.c.kind != "gold", items.c.status.in_((*LABELLING, "adjudicate"))
    )
    return [(row.id, row.kind, row.subject) for row in conn.execute(query)]


def open_per_person(conn: Connection, model: str) -> dict[str, int]:
    """`{principal: number of open items that show their words}`."""
    return {value: int(n) for value, n in conn.execute(people_shown(model))}


def people_shown(model: str) -> Select[tuple[str, int]]:
    """The query of `open_per_person`: columns `value` and `n`."""
    return (
        select(links.c.value, func.count().label("n"))
        .join_from(links, items, links.c.item == items.c.id)
        .where(items.c.model == model, items.c.kind != "gold", links.c.kind == "person")
        .where(items.c.status.in_((*LABELLING, "adjudicate")))
        .group_by(links.c.value)
    )


def set_status(conn: Connection, id: str, status: ReviewStatus, outcome: ReviewVerdict | Literal[""] = "") -> None:
    """Move an item on, with its outcome when it is done.

    Raises:
        NotFoundError: no such item.
    """
    values = {"status": status, "outcome": outcome, "updated_at": utc_now()}
    if conn.execute(update(items).where(items.c.id == id).values(values)).rowcount != 1:
        raise _missing(id)


def in_line(conn: Connection) -> None:
    """Wait for whoever adds or erases rows, and let them wait, until the transaction ends.

    To be called first where rows change with their items: then items, rows and the audit log cannot be taken in another
    order by two transactions that wait for each other.
    """
    take(conn, "seq", 0)


def withdraw(conn: Connection, ids: Collection[str]) -> int:
    """Take items out of the queue that are not done, for example because their rows settled elsewhere."""
    changed = 0
    for part in chunks(_locked(conn, ids)):
        statement = update(items).where(items.c.id.in_(part), items.c.status.in_((*LABELLING, "adjudicate")))
        changed += conn.execute(statement.values(status="withdrawn", updated_at=utc_now())).rowcount
        conn.execute(delete(leases).where(leases.c.item.in_(part)))
    return changed


def _locked(conn: Connection, ids: Collection[str]) -> list[str]:
    """Lock items before anything that belongs to them, in one order: so does `label`, and nobody deadlocks."""
    found: list[str] = []
    for part in chunks(sorted(set(ids))):
        query = select(items.c.id).where(items.c.id.in_(part)).order_by(items.c.id).with_for_update()
        found += conn.execute(query).scalars()
    return found


def lock_about(conn: Connection, kinds: Collection[str], subjects: Collection[str]) -> list[str]:
    """Ids of the items about these subjects, locked until the transaction ends."""
    found: list[str] = []
    for part in chunks(subjects):
        query = select(items.c.id).where(items.c.kind.in_(kinds), items.c.subject.in_(part))
        found += conn.execute(query).scalars()
    return _locked(conn, found)


# --- labels ---------------------------------------------------------------------------------------


def label(
    conn: Connection,
    item: str,
    labeller: str,
    token: str,
    answer: ReviewAnswer,
    *,
    role: Role = "label",
    now: datetime | None = None,
) -> bool:
    """Record an answer and end the lease. The caller then settles the item in the same transaction.

    Returns:
        False if this very answer was recorded before.

    Raises:
        NotFoundError: no such item.
        ConflictError: this person answered otherwise before, or the item wants no such label any more.
        StaleTokenError: the lease ran out, was given to somebody else, or never was this labeller's.
    """
    now = now or utc_now()
    row = conn.execute(select(*ITEM_COLUMNS).where(items.c.id == item).with_for_update()).one_or_none()
    if row is None:
        raise _missing(item)
    before = conn.execute(select(*ANSWER_COLUMNS).where(_one(item, labeller))).one_or_none()
    if before is not None:
        if ReviewAnswer.model_validate(dict(before._mapping)) == answer:
            return False
        raise ConflictError("This person has labelled this item already.", where=item, found=before.verdict)
    if row.status not in (("adjudicate",) if role == "adjudicate" else LABELLING):
        raise ConflictError(
            "The item wants no such label now.",
            where=item,
            expected="an item to adjudicate" if role == "adjudicate" else "an open item",
            found=f"status {row.status}",
        )
    lease = conn.execute(select(*leases.c).where(leases.c.item == item)).one_or_none()
    live = lease is not None and lease.labeller == labeller and lease.until > now
    if lease is None or not live or not hmac.compare_digest(lease.token.encode(), token.encode()):
        raise StaleTokenError(
            "The lease on this item is not live.",
            where=item,
            expected="the token of the last `review next`, before it runs out",
            found="no lease" if lease is None else "a lease that ran out or is another's",
            fix="ask for the next item again",
        )
    values = {"item": item, "labeller": labeller, "role": role, "at": now, **answer.model_dump()}
    conn.execute(labels.insert().values(checked(labels, values)))
    conn.execute(delete(leases).where(leases.c.item == item))
    return True


def _one(item: str, labeller: str) -> ColumnElement[bool]:
    return and_(labels.c.item == item, labels.c.labeller == labeller)


def labels_of(conn: Connection, item: str) -> list[ReviewLabel]:
    """An item's labels, oldest first."""
    query = select(*labels.c).where(labels.c.item == item).order_by(labels.c.at, labels.c.labeller)
    return [_label(row) for row in conn.execute(query)]


def labelled_items(conn: Connection, model: str, *, gold: bool = False) -> Iterator[tuple[ReviewItem, ReviewLabel]]:
    """Independent labels with their items, gold or all others; adjudications, made knowing the labels, are left out."""
    query = (
        select(*ITEM_COLUMNS, *(c.label(f"l_{c.name}") for c in labels.c))
        .join_from(labels, items, labels.c.item == items.c.id)
        .where(items.c.model == model, labels.c.role == "label")
        .where(items.c.kind == "gold" if gold else items.c.kind != "gold")
        .order_by(items.c.id, labels.c.labeller)
    )
    for row in conn.execute(query):
        values = row._mapping
        answer = {c.name: values[f"l_{c.name}"] for c in ANSWER_COLUMNS}
        said = {name: values[f"l_{name}"] for name in ("item", "labeller", "role", "at")}
        yield _item(row), ReviewLabel.model_validate({**said, "answer": answer})


# --- erasure --------------------------------------------------------------------------------------


def erase(conn: Connection, subjects: Collection[str], principals: Collection[str]) -> int:
    """Remove items about these rows, requests and incidents or with these people's words, and their labels.

    An item that loses a label before it is settled asks for another one.

    Args:
        conn: a writing connection.
        subjects: ids of feedback rows, requests and incidents.
        principals: the people, as askers, authors or labellers.

    Returns:
        the number of items and labels removed.
    """
    found: set[str] = set()
    for kind, values in (("about", subjects), ("person", principals)):
        for part in chunks(values):
            query = select(links.c.item).where(links.c.kind == kind, links.c.value.in_(part))
            found.update(conn.execute(query).scalars())
    removed = remove(conn, found)
    for part in chunks(principals):
        touched = set(conn.execute(select(labels.c.item).where(labels.c.labeller.in_(part))).scalars())
        _locked(conn, touched)
        conn.execute(delete(leases).where(leases.c.labeller.in_(part)))
        removed += conn.execute(delete(labels).where(labels.c.labeller.in_(part))).rowcount
        for some in chunks(sorted(touched)):
            _ask_again(conn, some)
    return removed


def remove(conn: Connection, ids: Collection[str]) -> int:
    """Delete items with their labels, loans and links; returns the number of items and labels."""
    removed = 0
    for part in chunks(_locked(conn, ids)):
        removed += conn.execute(delete(labels).where(labels.c.item.in_(part))).rowcount
        for table in (leases, links):
            conn.execute(delete(table).where(table.c.item.in_(part)))
        removed += conn.execute(delete(items).where(items.c.id.in_(part))).rowcount
    return removed


def _ask_again(conn: Connection, ids: Sequence[str]) -> None:
    left = exists().where(labels.c.item == items.c.id)
    unsettled = and_(items.c.id.in_(ids), or_(items.c.status == "labelled", items.c.status == "adjudicate"))
    conn.execute(update(items).where(unsettled, left).values(status="labelled", updated_at=utc_now()))
    conn.execute(update(items).where(unsettled, ~left).values(status="open", updated_at=utc_now()))
