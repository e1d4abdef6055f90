"""Interactions and their feedback as JSON Lines, in and out.

A line is `{"interaction": {...}, "feedback": [{...}, ...]}`, or an interaction alone. An interaction needs `messages`
and `answer`; a piece of feedback needs `kind` and what its kind says (`text`, `thumb`, ...). What is missing of ids is
derived from the line, so importing a file twice changes nothing. Everything is redacted on its way in.

    {"interaction": {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"},
     "feedback": [{"kind": "correction", "text": "Good day"}]}
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.errors import InputError, TidemillError
from configs.schema import Config
from data_contracts.digests import canonical_json, digest
from data_contracts.ids import derived_request_id, request_id_is_ours
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message, UtcDatetime, utc_now
from data_contracts.redaction import Redactor
from store import feedback as feedback_table
from store import interactions as interaction_table
from store.engine import Store

MAX_LINE = 4 * 1024 * 1024
"""Bytes of one line."""
BATCH = 500
ANONYMOUS = "imported"
_NEEDS: dict[FeedbackKind, tuple[str, ...]] = {
    FeedbackKind.THUMB: ("thumb",),
    FeedbackKind.RATING: ("rating",),
    FeedbackKind.CORRECTION: ("text",),
    FeedbackKind.PREFERENCE: ("text", "rejected"),
    FeedbackKind.COMMENT: ("text",),
    FeedbackKind.INCIDENT: ("text",),
}
Name = Annotated[str, Field(min_length=1, max_length=128)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InteractionLine(_Line):
    """An interaction as it may be imported; all but messages and answer have defaults."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    answer: str
    id: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    created_at: UtcDatetime | None = None
    model: str | None = None
    principal: Name = ANONYMOUS
    conversation: Name | None = None
    prompt_version: Annotated[str, Field(max_length=64)] = ""
    arm: Annotated[str, Field(max_length=16)] = "champion"
    version: Annotated[str, Field(max_length=96)] = "base"
    rollout_id: str | None = None
    route_revision: int = 0
    arm_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    tokens_in: Annotated[int, Field(ge=0)] = 0
    tokens_out: Annotated[int, Field(ge=0)] = 0
    latency_ms: Annotated[int, Field(ge=0)] = 0
    ttft_ms: Annotated[int, Field(ge=0)] = 0
    cost_microdollars: Annotated[int, Field(ge=0)] = 0
    flags: tuple[str, ...] = ()


class FeedbackLine(_Line):
    """Feedback as it may be imported."""

    kind: FeedbackKind
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    interaction_id: str | None = None
    created_at: UtcDatetime | None = None
    principal: Name | None = None
    scope: Annotated[str, Field(pattern="^(user|review)$")] = "user"
    source: Annotated[str, Field(max_length=32)] = "import"
    thumb: Annotated[int, Field(ge=-1, le=1)] | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: str | None = None
    rejected: str | None = None
    label: Annotated[str, Field(max_length=128)] | None = None


class _Both(_Line):
    interaction: InteractionLine
    feedback: tuple[FeedbackLine, ...] = ()


@dataclass(frozen=True)
class LineError:
    """One line that was not imported."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class ImportReport:
    """What an import did; rows that were there already are not counted."""

    interactions: int
    feedback: int
    repeated: int
    """Interactions and feedback that were stored before."""
    errors: tuple[LineError, ...]


@dataclass(frozen=True)
class _Parsed:
    line: int
    interaction: Interaction
    feedback: tuple[Feedback, ...]


def import_jsonl(store: Store, config: Config, path: Path, key: bytes) -> ImportReport:
    """Import a file; each bad line is named with its number and the good ones are kept.

    Args:
        store: where to.
        config: for the model's name; a line that names another model is an error.
        path: UTF-8, one JSON object a line; blank lines are skipped.
        key: the installation's secret. Ids it did not make become ids derived from them.

    Raises:
        InputError: the file cannot be read.
    """
    totals = [0, 0, 0]
    errors: list[LineError] = []
    batch: list[_Parsed] = []

    def flush() -> None:
        for n, value in enumerate(_write(store, config.model.name, batch, errors)):
            totals[n] += value
        batch.clear()

    try:
        with path.open("rb") as handle:
            for number, raw in _lines(handle):
                try:
                    batch.append(_parse(raw, number, config.model.name, key))
                except InputError as error:
                    errors.append(LineError(number, str(error)))
                if len(batch) >= BATCH:
                    flush()
        flush()
    except OSError as error:
        raise InputError("the file cannot be read", where=path, found=error.strerror or error) from error
    return ImportReport(totals[0], totals[1], totals[2], tuple(sorted(errors, key=lambda e: e.line)))


def _lines(handle: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Numbered lines that are not blank; None for one that is too long."""
    number = 0
    while raw := handle.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            while raw and not raw.endswith(b"\n"):
                raw = handle.readline(MAX_LINE)
            yield number, None
        elif raw.strip():
            yield number, raw


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _decode(raw: bytes | None) -> dict[str, Any]:
    if raw is None:
        raise InputError("the line is too long", expected=f"at most {MAX_LINE} bytes")
    try:
        data = json.loads(raw.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", found=f"byte {raw[error.start]:#04x} at position {error.start}") from error
    except RecursionError as error:
        raise InputError("nested too deeply") from error
    except ValueError as error:
        raise InputError("not valid JSON", found=error) from error
    if not isinstance(data, dict):
        raise InputError("a line is a JSON object", found=type(data).__name__)
    try:
        canonical_json(data)
    except UnicodeEncodeError as error:
        raise InputError("a text holds half a surrogate pair, which is no character") from error
    except ValueError as error:
        raise InputError("a number is too large for any JSON reader") from error
    except RecursionError as error:
        raise InputError("nested too deeply") from error
    return data


def _parse(raw: bytes | None, number: int, model: str, key: bytes) -> _Parsed:
    data = _decode(raw)
    try:
        both = _Both.model_validate(data if "interaction" in data else {"interaction": data})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        field = field if "interaction" in data else field.removeprefix("interaction.")
        # The value may be personal: its type is enough.
        raise InputError(f"`{field}`: {first['msg']}", found=type(first.get("input")).__name__) from None
    served = both.interaction
    if served.model not in (None, model):
        raise InputError("`model`: another model", expected=model, found=served.model)
    if not any(m.role == "user" and m.content.strip() for m in served.messages):
        raise InputError("`messages`: no user message")
    for place, said in enumerate(both.feedback):
        _check_needs(said, place)
    return _records(both, number, model, key)


def _check_needs(said: FeedbackLine, place: int) -> None:
    for name in _NEEDS[said.kind]:
        value = getattr(said, name)
        if value is None or value == 0 or (isinstance(value, str) and not value.strip()):
            raise InputError(f"`feedback.{place}.{name}`: kind `{said.kind.value}` needs it")


def _records(both: _Both, number: int, model: str, key: bytes) -> _Parsed:
    given = both.interaction
    facts = given.model_dump(mode="json", exclude={"created_at"} if given.id else None, exclude_none=True)
    name = given.id if given.id and request_id_is_ours(key, model, given.id) else None
    name = name or derived_request_id(key, model, canonical_json(given.id or facts))
    now = utc_now()
    session = Redactor().session()
    messages, _ = Redactor().redact_messages(given.messages, session)
    values = given.model_dump(exclude={"id", "created_at", "model", "conversation", "messages", "answer", "rollout_id"})
    served = Interaction(
        id=name,
        created_at=given.created_at or now,
        model=model,
        conversation=given.conversation or name,
        messages=tuple(messages),
        answer=session.redact(given.answer)[0],
        # Imported traffic is no evidence about a rollout.
        rollout_id=None,
        **values,
    )
    said = tuple(_said(line, served, key, now, session.redact) for line in both.feedback)
    return _Parsed(number, served, said)


def _said(line: FeedbackLine, served: Interaction, key: bytes, now: datetime, redact: Any) -> Feedback:
    def clean(value: str | None) -> str | None:
        return None if value is None else redact(value)[0]

    facts = line.model_dump(mode="json", exclude={"id", "interaction_id"}, exclude_none=True)
    derived = "fb-" + digest([derived_request_id(key, served.model, canonical_json(facts)), served.id])[:40]
    return Feedback.model_validate(
        {
            "id": line.id or derived,
            "interaction_id": served.id,
            "kind": line.kind,
            "created_at": line.created_at or now,
            "principal": line.principal or served.principal,
            "scope": line.scope,
            "source": line.source,
            "thumb": line.thumb,
            "rating": line.rating,
            "text": clean(line.text),
            "rejected": clean(line.rejected),
            "label": clean(line.label),
        }
    )


def _write(store: Store, model: str, batch: Sequence[_Parsed], errors: list[LineError]) -> tuple[int, int, int]:
    """One transaction for all lines; where one cannot be stored, one each. Returns (new, new feedback, repeated)."""
    if not batch:
        return 0, 0, 0
    try:
        with store.write() as conn:
            ids = {parsed.interaction.id for parsed in batch}
            new = len(ids) - len(interaction_table.existing(conn, sorted(ids)))
            interaction_table.insert(conn, [parsed.interaction for parsed in batch])
            said = [(model, one) for parsed in batch for one in parsed.feedback]
            new_said = len(feedback_table.insert_new(conn, said))
    except TidemillError as error:
        if len(batch) == 1:
            errors.append(LineError(batch[0].line, str(error)))
            return 0, 0, 0
        parts = [_write(store, model, [parsed], errors) for parsed in batch]
        return sum(p[0] for p in parts), sum(p[1] for p in parts), sum(p[2] for p in parts)
    return new, new_said, len(batch) - new + len(said) - new_said


def export_jsonl(store: Store, config: Config, out: Path) -> int:
    """Write the model's interactions with their feedback, oldest first, and return the number of lines.

    The file appears whole or not at all. Salts stay in the store: without them an erased row cannot be recognised.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    lines = 0
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as handle:
            for interaction, said in _stored(store, config.model.name):
                line = {
                    "interaction": interaction.model_dump(mode="json"),
                    "feedback": [f.model_dump(mode="json", exclude={"salt"}, exclude_none=True) for f in said],
                }
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
                lines += 1
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(out)
    except OSError as error:
        raise InputError("the file cannot be written", where=out, found=error.strerror or error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return lines


def _stored(store: Store, model: str) -> Iterator[tuple[Interaction, list[Feedback]]]:
    seq = 0
    while True:
        with store.read() as conn:
            page = interaction_table.since(conn, model, seq, BATCH)
            said = [feedback_table.for_interaction(conn, interaction.id) for _, interaction in page]
        if not page:
            return
        yield from ((interaction, found) for (_, interaction), found in zip(page, said, strict=True))
        seq = page[-1][0]
