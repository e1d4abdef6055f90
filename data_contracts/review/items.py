"""From held rows, incidents and served requests to review items. Pure: texts in, redacted items out.

The `redactor` is the installation's; None masks everything.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from configs.schema import ReviewSection
from data_contracts.curation import conversation_text
from data_contracts.overlap import answer_key, prompt_key
from data_contracts.records import (
    Incident,
    Interaction,
    LabelledRow,
    QuarantinedRow,
    ReviewItem,
    ReviewKind,
    ReviewPayload,
    utc_now,
)
from data_contracts.redaction import Redactor
from data_contracts.review.desk import redacted
from store.reviews import new_item_id

PRIORITY = {"conflict": 60, "quarantine": 50, "answer": 40, "sample": 20}
INCIDENT_PRIORITY = {"critical": 100, "high": 90, "medium": 80, "low": 70}
MAX_OPTIONS = 5


@dataclass(frozen=True)
class Proposal:
    """An item with whose words it shows and what it is about."""

    item: ReviewItem
    people: tuple[str, ...]
    about: tuple[str, ...]


def kind_of(reason: str) -> ReviewKind:
    """Under which guideline a held row is reviewed."""
    return "conflict" if reason == "conflict" else "quarantine"


def comes_to_review(reason: str, patterns: Sequence[str]) -> bool:
    """True if rows held for `reason` are shown to people."""
    return any(fnmatch.fnmatchcase(reason, pattern) for pattern in patterns)


def _wanted(kind: ReviewKind, settings: ReviewSection) -> int:
    return 2 if kind in settings.two_labels else 1


def row_items(
    rows: Iterable[tuple[QuarantinedRow, LabelledRow]],
    model: str,
    settings: ReviewSection,
    redactor: Redactor | None = None,
) -> list[Proposal]:
    """Items of held rows; conflicting ones list the other corrections of the same conversation."""
    pairs = list(rows)
    rivals: dict[str, dict[str, str]] = {}
    for held, row in pairs:
        if kind_of(held.reason) == "conflict":
            same = rivals.setdefault(prompt_key(conversation_text(row.messages)), {})
            same.setdefault(answer_key(row.completion), row.completion)
    found = []
    for held, row in pairs:
        kind = kind_of(held.reason)
        same = rivals.get(prompt_key(conversation_text(row.messages)), {}) if kind == "conflict" else {}
        others = [text for key, text in sorted(same.items()) if key != answer_key(row.completion)]
        payload = ReviewPayload(
            messages=row.messages, answer=row.answer, proposed=row.completion, options=tuple(others[:MAX_OPTIONS])
        )
        item = ReviewItem(
            id=new_item_id(),
            model=model,
            kind=kind,
            subject=row.id,
            payload=redacted(payload, redactor),
            guideline=kind,
            labels_wanted=_wanted(kind, settings),
            priority=PRIORITY[kind],
            reason=held.reason,
            created_at=row.created_at,
        )
        found.append(Proposal(item, (row.principal, row.asked_by), (row.interaction_id,)))
    return found


def incident_item(incident: Incident, settings: ReviewSection, redactor: Redactor | None = None) -> Proposal:
    """An open incident, its required answer to be confirmed."""
    payload = ReviewPayload(
        messages=incident.messages,
        answer=incident.answer,
        proposed=incident.required,
        title=incident.title,
        severity=incident.severity,
    )
    item = ReviewItem(
        id=new_item_id(),
        model=incident.model,
        kind="incident",
        subject=incident.id,
        payload=redacted(payload, redactor),
        guideline="incident",
        labels_wanted=_wanted("incident", settings),
        priority=INCIDENT_PRIORITY[incident.severity],
        created_at=incident.opened_at,
    )
    about = (incident.interaction_id,) if incident.interaction_id else ()
    return Proposal(item, (incident.opened_by,), about)


def is_sampled(key: bytes, request_id: str, share: float) -> bool:
    """True for `share` of requests: HMAC-SHA256 of the id, so the same each time and not to be foretold by users."""
    value = hmac.new(key, b"review sample\0" + request_id.encode(), hashlib.sha256).digest()
    return int.from_bytes(value[:8], "big") < share * 2**64


def sample_item(served: Interaction, settings: ReviewSection, redactor: Redactor | None = None) -> Proposal:
    """A served request, as it was."""
    item = ReviewItem(
        id=new_item_id(),
        model=served.model,
        kind="sample",
        subject=served.id,
        payload=redacted(ReviewPayload(messages=served.messages, answer=served.answer), redactor),
        guideline="sample",
        labels_wanted=_wanted("sample", settings),
        priority=PRIORITY["sample"],
        created_at=served.created_at,
    )
    return Proposal(item, (served.principal,), ())


def answer_item(
    model: str,
    subject: str,
    payload: ReviewPayload,
    settings: ReviewSection,
    *,
    about: Collection[str] = (),
    redactor: Redactor | None = None,
) -> Proposal:
    """An answer for people to judge; `proposed` may hold the reference. Its labels count, nothing else changes."""
    item = ReviewItem(
        id=new_item_id(),
        model=model,
        kind="answer",
        subject=subject,
        payload=redacted(payload, redactor),
        guideline="answer",
        labels_wanted=_wanted("answer", settings),
        priority=PRIORITY["answer"],
        created_at=utc_now(),
    )
    return Proposal(item, (), tuple(about))
