"""What could come to review and is not there yet: held rows, incidents, served requests. Reading only, but for the mark
up to which requests were sampled.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, exists, func, select

from data_contracts.records import OPEN_REVIEW_STATUSES, LabelledRow, QuarantinedRow, utc_now
from store.feedback import TEACHING_KINDS, labelled_by_id
from store.reviews import people_shown
from store.rows import insert_into
from store.tables import feedback as said
from store.tables import interactions as served
from store.tables import quarantine as held
from store.tables import review_feeds as feeds
from store.tables import review_items as items

ROW_KINDS = ("quarantine", "conflict")


class Candidate(NamedTuple):
    """A served request that may be sampled."""

    seq: int
    id: str
    principal: str
    created_at: datetime


def held_reasons(conn: Connection, model: str) -> list[str]:
    """Reason codes of the rows held now."""
    query = select(held.c.reason).distinct().where(held.c.model == model, held.c.status == "held")
    return sorted(conn.execute(query).scalars())


def unqueued_rows(
    conn: Connection, model: str, reasons: Collection[str], *, per_principal: int, limit: int
) -> list[tuple[QuarantinedRow, LabelledRow]]:
    """Rows held for one of `reasons` that are not in the queue: everybody's first, then everybody's second, and so on.

    Whoever has open items gets the fewer, and none at the cap: their rows are not counted into `limit`, where those of
    enough people at the cap would keep out everybody else's.

    Args:
        conn: a connection.
        model: whose rows.
        reasons: exact reason codes.
        per_principal: most rows of one author, open items that show their words included.
        limit: most rows.
    """
    queued = exists().where(
        items.c.kind.in_(ROW_KINDS), items.c.subject == held.c.row_id, items.c.status != "withdrawn"
    )
    place = func.row_number().over(partition_by=said.c.principal, order_by=said.c.seq).label("place")
    shown = people_shown(model).subquery()
    left = (per_principal - func.coalesce(shown.c.n, 0)).label("left")
    columns = (held.c.row_id, held.c.digest, held.c.reason, held.c.detail, held.c.status, said.c.seq, place, left)
    ranked = (
        select(*columns)
        .join_from(held, said, held.c.row_id == said.c.id)
        .join(shown, shown.c.value == said.c.principal, isouter=True)
        .where(held.c.model == model, held.c.status == "held", held.c.reason.in_(reasons), ~queued)
        .where(said.c.kind.in_(TEACHING_KINDS))
        .subquery()
    )
    query: Select[Any] = (
        select(ranked).where(ranked.c.place <= ranked.c.left).order_by(ranked.c.place, ranked.c.seq).limit(limit)
    )
    found = [
        QuarantinedRow.model_validate({c: row._mapping[c] for c in ("row_id", "digest", "reason", "detail", "status")})
        for row in conn.execute(query)
    ]
    rows = labelled_by_id(conn, [row.row_id for row in found])
    return [(row, rows[row.row_id]) for row in found if row.row_id in rows]


class OpenRow(NamedTuple):
    """An open item about a row, and what the quarantine says of the row now; empty if it is not there any more."""

    item: str
    kind: str
    status: str
    reason: str


def open_rows(conn: Connection, model: str) -> list[OpenRow]:
    """All open items about held rows."""
    query = (
        select(items.c.id, items.c.kind, held.c.status, held.c.reason)
        .join_from(items, held, items.c.subject == held.c.row_id, isouter=True)
        .where(items.c.model == model, items.c.kind.in_(ROW_KINDS), items.c.status.in_(OPEN_REVIEW_STATUSES))
    )
    return [OpenRow(row.id, row.kind, row.status or "", row.reason or "") for row in conn.execute(query)]


def sampled_upto(conn: Connection, model: str, now: datetime | None = None) -> int:
    """Up to which commit requests were looked at; at first, the last one that is older than a day."""
    mark = conn.execute(select(feeds.c.sampled_upto).where(feeds.c.model == model)).scalar_one_or_none()
    if mark is not None:
        return int(mark)
    old = served.c.created_at < (now or utc_now()) - timedelta(days=1)
    return int(conn.execute(select(func.max(served.c.seq)).where(served.c.model == model, old)).scalar_one() or 0)


def candidates(conn: Connection, model: str, seq: int, limit: int) -> list[Candidate]:
    """The next requests after commit `seq` that have an answer, in order of commits."""
    columns = (served.c.seq, served.c.id, served.c.principal, served.c.created_at)
    query = select(*columns).where(served.c.model == model, served.c.seq > seq, served.c.answer != "")
    return [Candidate(*row) for row in conn.execute(query.order_by(served.c.seq).limit(limit))]


def mark_sampled(conn: Connection, model: str, upto: int) -> None:
    """Remember up to which commit requests were looked at; it never goes back."""
    statement = insert_into(conn, feeds).values(model=model, sampled_upto=upto, updated_at=utc_now())
    new = {name: statement.excluded[name] for name in ("sampled_upto", "updated_at")}
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["model"], set_=new, where=feeds.c.sampled_upto < statement.excluded.sampled_upto
        )
    )


def samples_on(conn: Connection, model: str, days: Sequence[datetime]) -> dict[datetime, int]:
    """`{midnight: sampled requests served on that day}` (UTC)."""
    counts = {}
    for day in days:
        query = select(func.count()).where(items.c.model == model, items.c.kind == "sample")
        within = (items.c.created_at >= day, items.c.created_at < day + timedelta(days=1))
        counts[day] = int(conn.execute(query.where(*within)).scalar_one())
    return counts
