"""From a batch of any source to records fit to be stored: redacted, with ids only this installation can make.

An interaction whose id is one of ours keeps it, so that labels made elsewhere join what we served. Any other id, and
the content where there is none, becomes a request id by the installation's key; feedback on such gets an id derived
from its own id, or from what it says, and the interaction. The same row is the same records each time it is read, so
reading it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from configs.errors import InputError
from data_contracts.digests import canonical_json, digest
from data_contracts.ids import derived_request_id, request_id_is_ours
from data_contracts.records import Feedback, Interaction, utc_now
from data_contracts.redaction import Redactor
from data_contracts.sources.base import RowError
from data_contracts.sources.lines import FeedbackLine, InteractionLine, from_batch, parse_line

if TYPE_CHECKING:
    import pyarrow as pa

_MADE = {"id", "created_at", "model", "conversation", "messages", "prompt_version", "answer", "rollout_id", "flags"}
"""Fields of a line that are not taken over as they are."""
Redact = Callable[[str], tuple[str, dict[str, int]]]


@dataclass(frozen=True)
class Arrival:
    """One row that may be stored."""

    origin: str
    line: int
    interaction: Interaction
    feedback: Feedback | None


def admit(batch: pa.RecordBatch, *, model: str, key: bytes, redactor: Redactor) -> tuple[list[Arrival], list[RowError]]:
    """The records of a batch, and the rows that are none.

    Args:
        batch: columns as in `base.schema()`.
        model: the product model's name; a row that names another is an error.
        key: the installation's secret.
        redactor: with this installation's policy.
    """
    arrivals: list[Arrival] = []
    errors: list[RowError] = []
    now = utc_now()
    last: dict[str, Any] | None = None
    served: Interaction | None = None
    session = redactor.session()
    for origin, number, interaction, feedback in from_batch(batch):
        try:
            line = parse_line({"interaction": interaction, "feedback": [feedback] if feedback else []})
            if line.interaction.model not in (None, model):
                raise InputError("`model`: another model", expected=model, found=type(line.interaction.model).__name__)
            if served is None or interaction != last:
                # All that was said of one interaction shares its placeholders.
                last, session = interaction, redactor.session()
                served = _served(line.interaction, model, key, now, redactor, session)
            ours = line.interaction.id == served.id
            said = _said(line.feedback[0], served, key, now, session.redact, ours=ours) if line.feedback else None
        except InputError as error:
            last = None
            errors.append(RowError.of(origin, number, error))
            continue
        arrivals.append(Arrival(origin, number, served, said))
    return arrivals, errors


def _served(
    given: InteractionLine, model: str, key: bytes, now: datetime, redactor: Redactor, session: Any
) -> Interaction:
    if given.id and request_id_is_ours(key, model, given.id):
        name = given.id
    else:
        facts = given.id or given.model_dump(mode="json", exclude_none=True)
        name = derived_request_id(key, model, canonical_json(facts))
    messages, _ = redactor.redact_messages(given.messages, session)
    values = given.model_dump(exclude=_MADE)
    answer = session.redact(given.answer)[0]
    return Interaction(
        id=name,
        created_at=given.created_at or now,
        model=model,
        conversation=_conversation(given.conversation, model, key, redactor) if given.conversation else name,
        messages=tuple(messages),
        answer=answer,
        prompt_version=session.redact(given.prompt_version)[0][:64],
        flags=tuple(session.redact(flag)[0] for flag in given.flags),
        # Imported traffic is no evidence about a rollout.
        rollout_id=None,
        **values,
    )


def _conversation(given: str, model: str, key: bytes, redactor: Redactor) -> str:
    """A conversation's name. One that holds something personal gets another: as placeholders two would be one."""
    if request_id_is_ours(key, model, given) or redactor.session().redact(given)[0] == given:
        return given
    return derived_request_id(key, model, canonical_json({"conversation": given}))


def _said(
    line: FeedbackLine, served: Interaction, key: bytes, now: datetime, redact: Redact, *, ours: bool
) -> Feedback:
    def clean(value: str | None) -> str | None:
        return None if value is None else redact(value)[0]

    # Two systems may give one id: it names this piece only together with the interaction.
    facts = line.id or line.model_dump(mode="json", exclude={"id", "interaction_id"}, exclude_none=True)
    derived = "fb-" + digest([derived_request_id(key, served.model, canonical_json(facts)), served.id])[:40]
    return Feedback(
        id=line.id if line.id and ours else derived,
        interaction_id=served.id,
        kind=line.kind,
        created_at=line.created_at or now,
        principal=line.principal or served.principal,
        scope=line.scope,
        thumb=line.thumb,
        rating=line.rating,
        text=clean(line.text),
        rejected=clean(line.rejected),
        label=clean(line.label),
        source=redact(line.source)[0][:32],
    )
