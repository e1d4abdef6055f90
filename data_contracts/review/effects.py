"""What a settled item changes, in the transaction that settles it.

    quarantine, conflict   accept releases the row, reject drops it, correct drops it and adds a reviewed correction
    incident               accept writes severity and root cause; correct puts an incident with the right answer in its
                           place; reject closes it
    sample                 correct adds a reviewed correction; the other verdicts are kept as a reviewer's comment
    gold, answer           only the labels count

Feedback made here has scope `review`, source `review` and an id derived from the item's, so a repeat counts once. A
reviewer's verdict on a sampled answer is a comment and no thumb: thumbs are the evidence of rollouts, and a reviewer is
not the user whose experience they measure.
"""

from __future__ import annotations

import uuid
from typing import Literal

from sqlalchemy import Connection

from configs.errors import InputError
from configs.schema import CurationSection
from data_contracts.records import Feedback, FeedbackKind, Incident, ReviewAnswer, ReviewItem, utc_now
from data_contracts.redaction import Redactor
from data_contracts.review.rules import Settlement
from store import feedback, incidents, interactions, quarantine, reviews

Effect = Literal["released", "dropped", "corrected", "amended", "superseded", "rejected", "noted", "none"]


def feedback_id(item: ReviewItem) -> str:
    """Id of the feedback an item makes."""
    return f"review-{item.id}"


def check(
    conn: Connection, item: ReviewItem, answer: ReviewAnswer, curation: CurationSection, redactor: Redactor
) -> None:
    """Refuse a required answer that no model could learn, before it is recorded.

    Raises:
        InputError: the incident's paraphrases would teach with its present required answer, but not with this one.
    """
    incident = incidents.get(conn, item.subject) if item.kind == "incident" and answer.text else None
    if incident is None:
        return
    from data_contracts.curation import incident_rows

    amended = incident.model_copy(update={"required": answer.text})
    teaches = bool(incident_rows([incident], (), curation, redactor))
    if teaches and not incident_rows([amended], (), curation, redactor):
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
    if incident is None or incident.status in incidents.CLOSED:
        return "none"
    if answer.verdict == "reject":
        incidents.set_status(conn, incident.id, "rejected")
        return "rejected"
    if answer.verdict == "correct" and answer.text != incident.required:
        _supersede(conn, item, incident, answer)
        return "superseded"
    incidents.amend(conn, incident.id, severity=answer.severity, root_cause=answer.root_cause)
    return "amended"


def successor_id(item: ReviewItem) -> str:
    """Id of the incident that takes the place of the one an item is about."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tidemill:incident:{item.subject}:{item.id}"))


def _supersede(conn: Connection, item: ReviewItem, old: Incident, answer: ReviewAnswer) -> None:
    """A new incident with the reviewed answer, which starts a retrain of its own and needs no review.

    The old one's texts stay as they were: a retrain that runs answers for what it read.
    """
    fresh = {"id": successor_id(item), "required": answer.text, "status": "open", "opened_at": utc_now()}
    words = {"severity": answer.severity or old.severity, "root_cause": answer.root_cause or old.root_cause}
    new = Incident.model_validate({**old.model_dump(), **fresh, **words})
    incidents.set_status(conn, old.id, "superseded")
    incidents.insert(conn, new)
    reviewed = item.model_copy(
        update={
            "id": reviews.new_item_id(),
            "subject": new.id,
            "status": "done",
            "outcome": "accept",
            "payload": item.payload.model_copy(update={"proposed": answer.text, "severity": new.severity}),
        }
    )
    reviews.add(conn, reviewed, people=reviews.people(conn, item.id), about=(old.id, old.interaction_id or ""))


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
