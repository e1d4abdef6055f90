"""What curation is told beside the rows: people, suspects, earlier splits and the embedder of an installation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime

from sqlalchemy import Connection

from configs.objectives import KtoObjective
from data_contracts.curation import CurationResult, Embed, Person, curate, curate_thumbs
from data_contracts.records import FeedbackKind, LabelledRow, utc_now
from data_contracts.review.stats import gold_agreement
from flows.context import Context
from store import people as people_table
from store import requests, steps
from store import snapshots as snapshot_table
from store.feedback import TEACHING_KINDS

TOO_FEW = "thumb.too_few"
"""Reason of thumbs that only wait for more of them."""


def people(
    conn: Connection,
    model: str,
    alias: Callable[[str], str],
    gold: Mapping[str, tuple[int, int]] | None = None,
    kinds: Sequence[str] = TEACHING_KINDS,
) -> dict[str, Person]:
    """Everybody who gave a correction: first request, and gold items `(right, answered)` where the caller knows.

    `alias` gives the installation's pseudonym of a name: first requests that retention deleted are kept under it.
    """
    first = people_table.first_seen(conn, model, alias, kinds)
    known = gold or {}
    return {name: Person(first.get(name), *known.get(name, (0, 0))) for name in sorted(first.keys() | known.keys())}


def suspects(conn: Connection, model: str, outcomes: Sequence[str]) -> set[str]:
    """Rows that were new in a round that ended so; a person's release lets them through."""
    seen: set[str] = set()
    found: set[str] = set()
    if not outcomes:
        return found
    for request in reversed(requests.list_requests(conn, model, limit=1000)):
        if request.status != "done":
            continue
        for step in steps.list_steps(conn, request.id):
            if step.name == "snapshot" and step.output and step.output.get("snapshot"):
                record = step.output["snapshot"]
                # A large snapshot's record names none of its rows; the store's table of members does.
                rows = set(record.get("row_ids", ())) or set(snapshot_table.splits(conn, record["digest"]))
                if request.outcome in outcomes:
                    found |= rows - seen
                seen |= rows
    return found


def embedder(context: Context) -> Embed | None:
    """The installation's embedder, each text embedded once; None where the policy compares words."""
    if not context.config.curation.embeddings:
        return None
    from models.embedding_cache import CachedEmbedder
    from models.embeddings import Embedder

    model = context.embedder()
    file = context.state.cache / "embeddings.sqlite"
    return CachedEmbedder(file, model.digest, lambda: Embedder(model.path, threads=context.config.model.threads))


def curated(
    context: Context,
    conn: Connection,
    rows: Sequence[LabelledRow],
    released: Set[str],
    eval_prompts: Iterable[str],
    now: datetime,
) -> CurationResult:
    """`curate` with all this installation knows."""
    policy = context.config.curation
    return curate(
        rows,
        released,
        policy,
        eval_prompts,
        people=people(conn, context.model, context.pseudonym, gold_agreement(conn, context.model)),
        suspects=suspects(conn, context.model, policy.suspects.outcomes),
        earlier=snapshot_table.sides(conn, context.model),
        embed=embedder(context),
        redactor=context.redactor,
        now=now,
    )


def curated_thumbs(
    context: Context,
    conn: Connection,
    thumbs: Sequence[LabelledRow],
    released: Set[str],
    eval_prompts: Iterable[str],
    now: datetime,
    *,
    beside: Sequence[LabelledRow],
    result: CurationResult,
) -> CurationResult:
    """`curate_thumbs` with all this installation knows; `beside` are the round's other rows, `result` what they are."""
    policy = context.config.curation
    kinds = (FeedbackKind.THUMB.value,)
    return curate_thumbs(
        thumbs,
        released,
        policy,
        eval_prompts,
        beside=beside,
        taught=[*result.train, *result.target],
        people=people(conn, context.model, context.pseudonym, gold_agreement(conn, context.model), kinds),
        suspects=suspects(conn, context.model, policy.suspects.outcomes),
        redactor=context.redactor,
        now=now,
    )


def too_few(taught: CurationResult, thumbs: Sequence[LabelledRow], rule: KtoObjective) -> str:
    """Why these thumbs teach nothing yet, or "" if they are enough."""
    who = {row.id: row.principal for row in thumbs}
    people_heard = len({who[row.row_id] for row in taught.train})
    if len(taught.train) >= rule.min_labels and people_heard >= rule.min_people:
        return ""
    return (
        f"{len(taught.train)} thumbs of {people_heard} people; "
        f"they teach from {rule.min_labels} of {rule.min_people} on"
    )


def teaching_thumbs(
    context: Context,
    thumbs: Sequence[LabelledRow],
    accepted: Set[str],
    statuses: Mapping[str, str],
    eval_prompts: Sequence[str],
    *,
    beside: Sequence[LabelledRow],
    result: CurationResult,
) -> tuple[CurationResult, Counter[str], str]:
    """What thumbs teach in a round.

    Args:
        context: the installation.
        thumbs: pulled.
        accepted: ids that met their contract; `statuses` of rows in quarantine.
        eval_prompts: prompts that measure.
        beside: the round's other rows, and `result` what curation made of them.

    Returns:
        (rows, reasons of those that wait for more without a place in quarantine, why they wait or "").
    """
    kept = [row for row in thumbs if row.id in accepted and statuses.get(row.id) != "dropped"]
    if not kept:
        return CurationResult([], [], []), Counter(), ""
    released = {row_id for row_id, status in statuses.items() if status == "released"}
    with context.store.read() as conn:
        now = utc_now()
        found = curated_thumbs(context, conn, kept, released, eval_prompts, now, beside=beside, result=result)
    waiting = too_few(found, kept, context.config.training.objectives.kto)
    if not waiting:
        return found, Counter(), ""
    reasons = Counter({TOO_FEW: len(found.train)} if found.train else {})
    return CurationResult([], [], found.left_out), reasons, waiting
