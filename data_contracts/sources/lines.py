"""One line of a source: an interaction with what was said of it, checked, to Arrow and back.

{"interaction": {"messages": [{"role": "user", "content": "Hi"}], "answer": "Hello"},
 "feedback": [{"kind": "correction", "text": "Good day"}]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from configs.errors import InputError
from data_contracts.records import FeedbackKind, Message, UtcDatetime, missing_field
from data_contracts.sources.base import Defaults, schema

if TYPE_CHECKING:
    import pyarrow as pa

_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
MAX_TEXT = 4 * 1024 * 1024
"""Characters of one interaction."""
MAX_REPEATED = 16 * MAX_TEXT
"""Characters of one interaction times its pieces of feedback."""
UNKNOWN_KEY = "<unknown key>"
"""Stands in messages for a key that is no field of ours."""


def storable(value: str) -> str:
    """Text that both databases can hold.

    Raises:
        ValueError: it holds U+0000 or half a surrogate pair.
    """
    if "\0" in value:
        raise ValueError("the text holds the NUL character (U+0000)")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text holds half a surrogate pair, which is no character") from None
    return value


def _storable_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    for message in messages:
        storable(message.content)
    return messages


Text = Annotated[str, AfterValidator(storable)]
Name = Annotated[Text, Field(min_length=1, max_length=128)]
Whole = Annotated[int, Field(ge=0, le=_INT32)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class InteractionLine(_Part):
    """An interaction as it may be imported; all but messages and answer have defaults."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1), AfterValidator(_storable_messages)]
    answer: Text
    id: Annotated[Text, Field(min_length=1, max_length=256)] | None = None
    created_at: UtcDatetime | None = None
    model: Text | None = None
    principal: Name = Defaults.principal
    conversation: Name | None = None
    prompt_version: Annotated[Text, Field(max_length=64)] = ""
    arm: Annotated[Text, Field(max_length=16)] = "champion"
    version: Annotated[Text, Field(max_length=96)] = "base"
    rollout_id: Annotated[Text, Field(max_length=36)] | None = None
    route_revision: Whole = 0
    arm_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    tokens_in: Whole = 0
    tokens_out: Whole = 0
    latency_ms: Whole = 0
    ttft_ms: Whole = 0
    cost_microdollars: Annotated[int, Field(ge=0, le=_INT64)] = 0
    flags: tuple[Text, ...] = ()


class FeedbackLine(_Part):
    """Feedback as it may be imported."""

    kind: FeedbackKind
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    interaction_id: str | None = None
    """Accepted and left unread: feedback belongs to the interaction of its line."""
    created_at: UtcDatetime | None = None
    principal: Name | None = None
    scope: Literal["user", "review"] = "user"
    source: Annotated[Text, Field(max_length=32)] = Defaults.source
    thumb: Literal[-1, 1] | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: Text | None = None
    rejected: Text | None = None
    label: Annotated[Text, Field(max_length=128)] | None = None


class Line(_Part):
    """One line: an interaction and what was said of it."""

    interaction: InteractionLine
    feedback: tuple[FeedbackLine, ...] = ()


def parse_line(data: Mapping[str, Any], defaults: Defaults | None = None, *, nested: bool = True) -> Line:
    """Check one line.

    Args:
        data: `{"interaction": {...}, "feedback": [...]}`.
        defaults: for what the line does not say.
        nested: False if the author wrote the interaction's fields without the key `interaction`, for the message.

    Raises:
        InputError: names the first wrong field, what was expected and the type of what was found (never its text).
    """
    if defaults is not None:
        data = _with_defaults(data, defaults)
    try:
        line = Line.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            where[-1] = UNKNOWN_KEY  # the key is the row's own text
        field = ".".join(where)
        field = field if nested else field.removeprefix("interaction.")
        message = first["msg"].removeprefix("Value error, ")
        # The value may be personal: its type is enough.
        raise InputError(f"`{field}`: {message}", found=type(first.get("input")).__name__) from None
    if not any(m.role == "user" and m.content.strip() for m in line.interaction.messages):
        raise InputError("`messages`: no user message")
    _check_size(line)
    for place, said in enumerate(line.feedback):
        name = missing_field(said)
        if name is not None:
            raise InputError(f"`feedback.{place}.{name}`: kind `{said.kind.value}` needs it")
    return line


def _check_size(line: Line) -> None:
    # A batch repeats an interaction for each piece of feedback: a long one with many would fill the memory.
    asked = size_of(line.interaction)
    if asked > MAX_TEXT or asked * len(line.feedback) > MAX_REPEATED:
        raise InputError(
            "the line is too long",
            expected=f"at most {MAX_TEXT} characters, and {MAX_REPEATED} counted once for each piece of feedback",
            found=f"{asked} characters and {len(line.feedback)} pieces of feedback",
        )


def size_of(interaction: InteractionLine) -> int:
    """Characters of its messages and its answer."""
    return len(interaction.answer) + sum(len(message.content) for message in interaction.messages)


def _with_defaults(data: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    interaction, feedback = data.get("interaction"), data.get("feedback", ())
    if isinstance(interaction, Mapping):
        interaction = {"principal": defaults.principal, **interaction}
    if isinstance(feedback, Sequence) and not isinstance(feedback, str):
        given = {"scope": defaults.scope, "source": defaults.source}
        feedback = [{**given, **said} if isinstance(said, Mapping) else said for said in feedback]
        if not defaults.trust_scope:
            # No row makes itself a reviewer's: that is for the configuration to say.
            for said in feedback:
                if isinstance(said, dict) and said["scope"] == "review":
                    said["scope"] = defaults.scope
    return {**data, "interaction": interaction, "feedback": feedback}


def to_batch(lines: Sequence[tuple[str, int, Line]]) -> pa.RecordBatch:
    """`(origin, line number, line)` as a record batch: a row per piece of feedback, or one without any."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for origin, number, line in lines:
        served = {f"interaction_{name}": value for name, value in line.interaction}
        served["interaction_messages"] = [{"role": m.role, "content": m.content} for m in line.interaction.messages]
        served |= {"origin": origin, "line": number}
        if not line.feedback:
            rows.append(served)
        rows += [{**served, **{f"feedback_{name}": value for name, value in said}} for said in line.feedback]
    return pa.RecordBatch.from_pylist(rows, schema=schema())


def from_batch(batch: pa.RecordBatch) -> Iterator[tuple[str, int, dict[str, Any], dict[str, Any] | None]]:
    """The rows of a batch as `(origin, line, interaction, feedback or None)`, nulls left out, to be checked again."""
    for row in batch.to_pylist():
        interaction: dict[str, Any] = {}
        feedback: dict[str, Any] = {}
        for name, value in row.items():
            if value is None:
                continue
            if name.startswith("interaction_"):
                interaction[name[12:]] = value
            elif name.startswith("feedback_"):
                feedback[name[9:]] = value
        yield row["origin"] or "", row["line"] or 0, interaction, feedback or None
