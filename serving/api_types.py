"""Bodies of requests, checked before anything else happens.

Unknown fields of a chat request are ignored, as OpenAI's clients send many; what would change the answer's meaning and
is not supported (several choices, tools, log probabilities) is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.errors import InputError
from data_contracts.records import FeedbackKind, Message, missing_field
from serving.http_errors import input_error

MAX_ID = 128


def _storable(value: str) -> str:
    """Text that both databases can hold."""
    if "\0" in value:
        raise ValueError("text without U+0000 expected")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("valid Unicode expected, found a lone surrogate") from None
    return value


def _identifier(value: str) -> str:
    """A user or conversation id: printable, at most 128 characters."""
    if not value.strip() or len(value) > MAX_ID or not value.isprintable():
        raise ValueError(f"1 to {MAX_ID} printable characters expected")
    return _storable(value)


Text = Annotated[str, AfterValidator(_storable)]
Identifier = Annotated[str, AfterValidator(_identifier)]


class Body(BaseModel):
    """Base of bodies: no silent conversion of types."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class TextPart(Body):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    """One message of a chat request."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def record(self) -> Message:
        """The message as a record; `developer` is OpenAI's newer name of `system`."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role="system" if self.role == "developer" else self.role, content=content)


class StreamOptions(Body):
    """What a stream adds."""

    include_usage: bool | None = None


class ChatMetadata(Body):
    """Metadata we understand."""

    conversation: Identifier | None = None


class ChatRequest(Body):
    """POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=4)] | None = None
    seed: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Identifier | None = None
    metadata: ChatMetadata | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _has_user_message(self) -> ChatRequest:
        if not any(message.role == "user" for message in self.messages):
            raise ValueError("at least one message of role `user` expected")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings, empty ones left out."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(s for s in given if s)

    @property
    def conversation(self) -> str | None:
        """The conversation's id, if the caller names one."""
        return self.metadata.conversation if self.metadata else None


class FeedbackBody(Body):
    """POST /feedback, one item."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    request_id: Annotated[str, Field(max_length=80)]
    kind: Annotated[FeedbackKind, Field(strict=False)]
    thumb: Literal[-1, 1] | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: Text | None = None
    rejected: Text | None = None
    label: Annotated[Text, Field(max_length=128)] | None = None
    user: Identifier | None = None
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    scope: Literal["user", "review"] = "user"

    @model_validator(mode="after")
    def _kind_has_its_field(self) -> FeedbackBody:
        name = missing_field(self)
        if name is not None:
            raise ValueError(f"kind `{self.kind.value}` needs `{name}`")
        return self


class IncidentBody(Body):
    """POST /incidents."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    request_id: Annotated[str, Field(max_length=80)] | None = None
    title: Annotated[Text, Field(min_length=1, max_length=256)]
    severity: Literal["low", "medium", "high", "critical"] = "high"
    messages: Annotated[list[ChatMessage], Field(min_length=1)] | None = None
    required: Annotated[Text, Field(min_length=1)]
    paraphrases: Annotated[list[Text], Field(max_length=100)] = []
    user: Identifier | None = None

    @model_validator(mode="after")
    def _has_a_prompt(self) -> IncidentBody:
        if self.request_id is None and self.messages is None:
            raise ValueError("`request_id` or `messages` expected")
        if not self.title.strip() or not self.required.strip():
            raise ValueError("`title` and `required` must not be blank")
        return self


B = TypeVar("B", bound=Body)


def parse(kind: type[B], data: Any, where: str = "") -> B:
    """Check a body.

    Args:
        kind: which body.
        data: the decoded JSON.
        where: put before the field's name, for items of a batch.

    Raises:
        InputError: names the first wrong field, what was expected and the type of what was found (never its text).
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise _explain(error, where) from None


def _explain(error: ValidationError, where: str) -> InputError:
    first = error.errors(include_url=False, include_context=False)[0]
    # Names of union members (`str`, `list[TextPart]`) are pydantic's, not the caller's.
    path = [
        str(part) for part in first["loc"] if not str(part).startswith(("list[", "function-", "str", "constrained"))
    ]
    field = ".".join(([where] if where else []) + path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    message = first["msg"].removeprefix("Value error, ")
    found = first.get("input")
    return input_error(
        f"{message}{more}",
        "missing_field" if first["type"] == "missing" else "invalid_value",
        where=field or None,
        found=None if first["type"] == "missing" else type(found).__name__,
    )
