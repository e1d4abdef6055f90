"""What a format is, and the chat messages most of them share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message

Row = Mapping[str, Any]
RawLine = dict[str, Any]
"""`{"interaction": {...}, "feedback": [{...}]}`, not yet checked."""


@dataclass
class Rendered:
    """What one interaction became in a format, and what was left out, by reason."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Format:
    """A format of rows."""

    name: str
    matches: Callable[[Row], bool]
    """True if the row's fields are those of the format."""
    parse: Callable[[Row], Iterable[RawLine]]
    """What the row says; raises InputError, naming the field, where it says nothing usable."""
    render: Callable[[Interaction, Sequence[Feedback], FeedbackKind], Rendered]
    """An interaction with all that was said of it; the kind chooses where a file holds one kind only."""
    container: Literal["jsonl", "json"] = "jsonl"
    holds: tuple[FeedbackKind, ...] = tuple(FeedbackKind)
    """Kinds of feedback it can hold."""
    bare: bool = False
    """True if it holds interactions that nobody said anything of."""
    one_kind: bool = False
    """True if all rows of a file are of one kind."""


# --- chat messages -------------------------------------------------------------------------------

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def text_of(value: Any, where: str) -> str:
    """The text of a message's content: a string, or a list of parts of type `text`.

    Raises:
        InputError: anything else (pictures, tool calls, nothing).
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        parts = []
        for part in value:
            if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise InputError(f"`{where}`: only parts of type text are understood")
            parts.append(part["text"])
        return "".join(parts)
    raise InputError(f"`{where}`: text expected", found=type(value).__name__)


def messages_of(value: Any, where: str) -> list[dict[str, str]]:
    """Chat messages as `[{"role", "content"}]`.

    Raises:
        InputError: no list, or a message of a tool, or one without text.
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"`{where}`: a list of messages expected", found=type(value).__name__)
    made = []
    for n, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise InputError(f"`{where}.{n}`: a message is an object", found=type(message).__name__)
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise InputError(f"`{where}.{n}.role`: this role is not understood", expected=", ".join(ROLES))
        made.append({"role": ROLES[role], "content": text_of(message.get("content"), f"{where}.{n}.content")})
    return made


def only_answer(value: Any, where: str) -> str:
    """The text of a completion given as text, or as a list of exactly one assistant message.

    Raises:
        InputError: several turns, or another's.
    """
    if isinstance(value, str):
        return value
    messages = messages_of(value, where)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise InputError(f"`{where}`: exactly one message of the assistant expected", found=f"{len(messages)} messages")
    return messages[0]["content"]


def chat(messages: Sequence[Message], answer: str | None = None) -> list[dict[str, str]]:
    """Records as chat messages, with an answer put after them."""
    made = [{"role": m.role, "content": m.content} for m in messages]
    return made if answer is None else [*made, {"role": "assistant", "content": answer}]


def demonstration(messages: Any, text: str, **more: Any) -> RawLine:
    """A wanted answer nobody's model gave another one for: a correction of an unknown answer."""
    return {"interaction": {"messages": messages, "answer": "", **more}, "feedback": [_said("correction", text=text)]}


def preference(messages: Any, chosen: str, rejected: str, **more: Any) -> RawLine:
    """A better and a worse answer; the worse one stands for what the model said."""
    said = _said("preference", text=chosen, rejected=rejected)
    return {"interaction": {"messages": messages, "answer": rejected, **more}, "feedback": [said]}


def thumb(messages: Any, answer: str, label: Any, where: str, **more: Any) -> RawLine:
    """An answer and whether it was good.

    Raises:
        InputError: the label is neither true nor false.
    """
    if isinstance(label, str) and label.lower() in ("true", "false"):
        label = label.lower() == "true"
    if not isinstance(label, bool):
        raise InputError(f"`{where}`: true or false expected", found=type(label).__name__)
    said = _said("thumb", thumb=1 if label else -1)
    return {"interaction": {"messages": messages, "answer": answer, **more}, "feedback": [said]}


def _said(kind: str, **values: Any) -> dict[str, Any]:
    return {"kind": kind, **values}


def needs_text(value: Any, where: str) -> str:
    """A string that is not blank.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"`{where}`: text expected", found=type(value).__name__)
    return value


def not_of_kind(said: Sequence[Feedback], kind: FeedbackKind, name: str) -> Counter[str]:
    """Why feedback of other kinds is left out of a file that holds one kind."""
    return Counter(f"{name}: a {one.kind.value} in a file of {kind.value}s" for one in said if one.kind is not kind)
