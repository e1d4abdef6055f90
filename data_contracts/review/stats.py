"""What the labels say about the labellers and the rules: gold agreement, Krippendorff's alpha, the queue's state."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, distinct, select

from data_contracts.records import OPEN_REVIEW_STATUSES, ReviewItem, ReviewLabel, utc_now
from data_contracts.review.alpha import Agreement, alpha_by_labeller, nominal_alpha
from data_contracts.review.rules import matches_gold
from store import review_leases, reviews
from store.tables import review_items


def gold_agreement(conn: Connection, model: str | None = None) -> dict[str, tuple[int, int]]:
    """`{labeller: (gold items answered as expected, gold items answered)}`, of one model or of all."""
    models = [model] if model is not None else list(conn.execute(select(distinct(review_items.c.model))).scalars())
    agreed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for name in models:
        for item, label in reviews.labelled_items(conn, name, gold=True):
            if item.gold_expected is not None:
                total[label.labeller] += 1
                agreed[label.labeller] += matches_gold(label.answer, item.gold_expected)
    return {labeller: (agreed[labeller], n) for labeller, n in sorted(total.items())}


@dataclass(frozen=True)
class LabellerStats:
    """One labeller."""

    labels: int
    """Independent labels, gold not counted."""
    gold_agreed: int
    gold_total: int
    agreement: Agreement
    """With those who labelled the same items."""


@dataclass(frozen=True)
class ReviewStats:
    """The queue and its labels."""

    counts: dict[str, dict[str, int]]
    """kind -> status -> items."""
    leased: int
    oldest_open_s: float | None
    """Age of the oldest item that waits, seconds."""
    labellers: dict[str, LabellerStats]
    rules: dict[str, Agreement]
    """By the rule that held the row; by kind where there is none."""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def review_stats(conn: Connection, model: str) -> ReviewStats:
    """Everything about a model's queue; gold items count for nobody's alpha, for they were chosen to be clear."""
    labelled = list(reviews.labelled_items(conn, model))
    units: dict[str, dict[str, str]] = defaultdict(dict)
    by_rule: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for item, label in labelled:
        units[item.id][label.labeller] = label.answer.verdict
        by_rule[_rule(item)][item.id][label.labeller] = label.answer.verdict
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for kind, status, n in reviews.counts(conn, model):
        counts[kind][status] = n
    waiting = [
        item.created_at
        for item in reviews.list_items(conn, model, statuses=OPEN_REVIEW_STATUSES)
        if item.kind != "gold"
    ]
    return ReviewStats(
        counts=dict(counts),
        leased=len(review_leases.live_leases(conn, model)),
        oldest_open_s=(utc_now() - min(waiting)).total_seconds() if waiting else None,
        labellers=_labellers(labelled, units, gold_agreement(conn, model)),
        rules={
            rule: nominal_alpha([tuple(given.values()) for given in by_item.values()])
            for rule, by_item in sorted(by_rule.items())
        },
    )


def _rule(item: ReviewItem) -> str:
    return item.reason or item.kind


def _labellers(
    labelled: list[tuple[ReviewItem, ReviewLabel]],
    units: dict[str, dict[str, str]],
    gold: dict[str, tuple[int, int]],
) -> dict[str, LabellerStats]:
    given = Counter(label.labeller for _, label in labelled)
    alphas = alpha_by_labeller(units)
    nobody = Agreement(None, None, 0, 0)
    return {
        name: LabellerStats(given[name], *gold.get(name, (0, 0)), alphas.get(name, nobody))
        for name in sorted({*given, *gold})
    }
