"""Feed the review queue: held rows, conflicts, open incidents and a random sample; take out what settled elsewhere.

Safe to run twice at once and as often as one likes: an item is added once per subject.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from data_contracts.review.items import (
    Proposal,
    comes_to_review,
    incident_item,
    is_sampled,
    kind_of,
    row_items,
    sample_item,
)
from flows.context import Context
from store import incidents, interactions, review_feeds, reviews

SCAN = 20_000
"""Most served requests looked at in one pass."""


@dataclass(frozen=True)
class FeedResult:
    """What one pass did."""

    added: dict[str, int] = field(default_factory=dict)
    """New items by kind."""
    withdrawn: int = 0
    """Items whose row or incident settled elsewhere."""


def feed(context: Context, now: datetime | None = None) -> FeedResult:
    """One pass."""
    model, settings = context.model, context.config.review
    with context.store.read() as conn:
        stale = _stale(conn, model)
    withdrawn = 0
    if stale:
        with context.store.write() as conn:
            withdrawn = reviews.withdraw(conn, stale)
    with context.store.read() as conn:
        room = max(0, settings.max_open_items - len(reviews.open_subjects(conn, model)))
        opened = incidents.all(conn, model, status="open")
        known = reviews.queued(conn, "incident", [incident.id for incident in opened])
        proposals = [
            incident_item(incident, settings, context.redactor) for incident in opened if incident.id not in known
        ]
        rows = _row_proposals(context, conn, room)
        before = review_feeds.sampled_upto(conn, model, now)
        samples, upto = _samples(context, conn, room - len(rows), before)
    added: Counter[str] = Counter()
    if not (proposals or rows or samples or upto > before):
        return FeedResult({}, withdrawn)
    with context.store.write() as conn:
        for proposal in (*proposals, *rows, *samples):
            if reviews.add(conn, proposal.item, people=proposal.people, about=proposal.about):
                added[proposal.item.kind] += 1
        review_feeds.mark_sampled(conn, model, upto)
    return FeedResult(dict(added), withdrawn)


def _stale(conn: Connection, model: str) -> list[str]:
    """Open items whose row is not held any more, or for another kind of reason, or whose incident was rejected."""
    rows = review_feeds.open_rows(conn, model)
    found = [row.item for row in rows if row.status != "held" or kind_of(row.reason) != row.kind]
    rejected = {i.id for status in incidents.CLOSED for i in incidents.all(conn, model, status=status)}
    if rejected:
        found += [
            id for id, kind, subject in reviews.open_subjects(conn, model) if kind == "incident" and subject in rejected
        ]
    return found


def _row_proposals(context: Context, conn: Connection, room: int) -> list[Proposal]:
    model, settings = context.model, context.config.review
    reasons = [r for r in review_feeds.held_reasons(conn, model) if comes_to_review(r, settings.reasons)]
    if not reasons or room <= 0:
        return []
    most = settings.max_items_per_principal
    found = review_feeds.unqueued_rows(conn, model, reasons, per_principal=most, limit=room)
    return row_items(found, model, settings, context.redactor)


def _samples(context: Context, conn: Connection, room: int, seq: int) -> tuple[list[Proposal], int]:
    """Items of sampled requests after commit `seq`, at most so many a day, and up to which commit was looked.

    Requests of held-out principals are never shown: a reviewer's correction could train on a prompt that measures.
    """
    from data_contracts.curation import is_held_out

    model, settings = context.model, context.config.review
    found = review_feeds.candidates(conn, model, seq, SCAN)
    picked = [
        one
        for one in found
        if is_sampled(context.state.key, one.id, settings.sample_share)
        and not is_held_out(one.principal, context.config.curation)
    ]
    days = {one.id: one.created_at.replace(hour=0, minute=0, second=0, microsecond=0) for one in picked}
    counts = review_feeds.samples_on(conn, model, sorted(set(days.values())))
    chosen: list[Proposal] = []
    for one in picked:
        if counts[days[one.id]] >= settings.sample_per_day or len(chosen) >= room:
            continue
        served = interactions.get(conn, one.id)
        if served is not None:
            counts[days[one.id]] += 1
            chosen.append(sample_item(served, settings, context.redactor))
    return chosen, found[-1].seq if found else seq
