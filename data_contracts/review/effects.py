"""What a settled item changes, in the transaction that settles it.

    quarantine, conflict   accept releases the row, reject drops it, correct drops it and adds a reviewed correction
    incident               accept and correct write severity, root cause and the required answer; reject closes it
    sample                 correct adds a reviewed correction; the other verdicts are kept as a reviewer's comment
    gold, answer           only the labels count

Feedback made here has scope `review`, source `review` and an id derived from the item's, so a repeat counts once. A
reviewer's verdict on a sampled answer is a comment and no thumb: thumbs are the evidence of rollouts, and a reviewer is
not the user whose experience they measure.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection

from configs.errors import InputError
from configs.schema import CurationSection
from data_contracts.records import Feedback, FeedbackKind, ReviewAnswer, ReviewItem, utc_now
from data_contracts.review.rules import Settlement
from store import feedback, incidents, interactions, quarantine

Effect = Literal["released", "dropped", "corrected", "amended", "rejected", "noted", "none"]


def feedback_id(item: ReviewItem) -> str:
    """Id of the feedback an item makes."""
    return f"review-{item.id}"


def check(conn: Connection, item: ReviewItem, answer: ReviewAnswer, curation: CurationSection) -> None:
    """Refuse a required answer that no model could learn, before it is recorded.

    Raises:
        InputError: the incident's paraphrases would teach with its present required answer, but not with this one.
    """
    incident = incidents.get(conn, item.subject) if item.kind == "incident" and answer.text else None
    if incident is None:
        return
    from data_contracts.curation import incident_rows

    amended = incident.model_copy(update={"required": answer.text})
    if incident_rows([incident], (), curation) and not incident_rows([amended], (), curation):
        raise InputError(
            "no model could learn this required answer",
            where="text",
            expected="an answer without personal data and chat control tokens",
            found=f"{len(answer.text)} characters",
        )


def apply(conn: Connection, item: ReviewItem, settled: Settlement) -> Effect:
    """Carry out a done item's answer; `none` where the row was settled elsewhere meanwhile."""
    if settled.answer is None:
        return "none"
    if item.kind in ("quarantine", "conflict"):
        return _row(conn, item, settled.answer, settled.by)
    if item.kind == "incident":
        return _incident(conn, item, settled.answer)
    if item.kind == "sample":
        return _sample(conn, item, settled.answer, settled.by)
    return "none"


def _row(conn: Connection, item: ReviewItem, answer: ReviewAnswer, by: str) -> Effect:
    held = quarantine.get(conn, item.model, item.subject)
    said = feedback.get(conn, item.subject)
    if held is None or held.status != "held":
        return "none"
    quarantine.set_status(conn, item.subject, "released" if answer.verdict == "accept" else "dropped")
    if answer.verdict != "correct":
        return "released" if answer.verdict == "accept" else "dropped"
    if said is None:
        return "dropped"
    _say(conn, item, said.interaction_id, by, FeedbackKind.CORRECTION, text=answer.text)
    return "corrected"


def _incident(conn: Connection, item: ReviewItem, answer: ReviewAnswer) -> Effect:
    incident = incidents.get(conn, item.subject)
    if incident is None or incident.status == "rejected":
        return "none"
    if answer.verdict == "reject":
        incidents.set_status(conn, incident.id, "rejected")
        return "rejected"
    incidents.amend(conn, incident.id, required=answer.text, severity=answer.severity, root_cause=answer.root_cause)
    return "amended"


def _sample(conn: Connection, item: ReviewItem, answer: ReviewAnswer, by: str) -> Effect:
    if not interactions.existing(conn, [item.subject]):
        return "none"
    if answer.verdict == "correct":
        _say(conn, item, item.subject, by, FeedbackKind.CORRECTION, text=answer.text)
        return "corrected"
    _say(conn, item, item.subject, by, FeedbackKind.COMMENT, label=answer.verdict)
    return "noted"


def _say(
    conn: Connection,
    item: ReviewItem,
    interaction: str,
    by: str,
    kind: FeedbackKind,
    *,
    text: str | None = None,
    label: str | None = None,
) -> None:
    said = Feedback(
        id=feedback_id(item),
        interaction_id=interaction,
        kind=kind,
        created_at=utc_now(),
        principal=by,
        scope="review",
        source="review",
        text=text,
        label=label,
    )
    feedback.insert(conn, [(item.model, said)])
