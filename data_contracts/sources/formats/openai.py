"""OpenAI's files for fine-tuning: chat (supervised) and preferences (DPO).

Chat: `{"messages": [{"role", "content", "weight"?}, ...]}`. The wanted answer is the last message of the assistant
whose `weight` is not 0; what is before it is the prompt, earlier turns are context, nothing after it is read.

DPO: `{"input": {"messages": [...]}, "preferred_output": [{...}], "non_preferred_output": [{...}]}`, one message of the
assistant each. (developers.openai.com: supervised fine-tuning, direct preference optimization)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import (
    Format,
    RawLine,
    Rendered,
    Row,
    chat,
    demonstration,
    messages_of,
    not_of_kind,
    only_answer,
    preference,
)

_DPO = {"input", "preferred_output", "non_preferred_output"}


def _is_chat(row: Row) -> bool:
    return "messages" in row and not {"interaction", "answer"} & set(row)


def _parse_chat(row: Row) -> list[RawLine]:
    given = row.get("messages")
    messages = messages_of(given, "messages")
    for n in range(len(messages) - 1, 0, -1):
        weight = given[n].get("weight", 1) if isinstance(given, list) else 1
        if weight not in (0, 1, None):
            raise InputError(f"`messages.{n}.weight`: 0 or 1 expected", found=type(weight).__name__)
        if messages[n]["role"] == "assistant" and weight != 0:
            return [demonstration(messages[:n], messages[n]["content"])]
    raise InputError("`messages`: no answer of the assistant to learn from")


def _render_chat(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    kind = FeedbackKind.CORRECTION
    rows = [{"messages": chat(interaction.messages, one.text)} for one in said if one.kind is kind]
    return Rendered(rows, not_of_kind(said, kind, "openai-chat"))


def _is_dpo(row: Row) -> bool:
    return set(row) >= _DPO


def _parse_dpo(row: Row) -> list[RawLine]:
    given = row.get("input")
    if not isinstance(given, Mapping):
        raise InputError("`input`: an object with `messages` expected", found=type(given).__name__)
    messages = messages_of(given.get("messages"), "input.messages")
    chosen = only_answer(row.get("preferred_output"), "preferred_output")
    return [preference(messages, chosen, only_answer(row.get("non_preferred_output"), "non_preferred_output"))]


def _render_dpo(interaction: Interaction, said: Sequence[Feedback], _kind: FeedbackKind) -> Rendered:
    kind = FeedbackKind.PREFERENCE
    rows = [
        {
            "input": {"messages": chat(interaction.messages)},
            "preferred_output": chat((), one.text),
            "non_preferred_output": chat((), one.rejected),
        }
        for one in said
        if one.kind is kind
    ]
    return Rendered(rows, not_of_kind(said, kind, "openai-dpo"))


OPENAI_CHAT = Format("openai-chat", _is_chat, _parse_chat, _render_chat, holds=(FeedbackKind.CORRECTION,))
OPENAI_DPO = Format("openai-dpo", _is_dpo, _parse_dpo, _render_dpo, holds=(FeedbackKind.PREFERENCE,))
