"""ShareGPT: `{"conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}`.

With `system` beside or inside it; `chosen` and `rejected` (one message each) make it a preference, `kto_tag` (true or
false) a thumb on the last answer, as LLaMA-Factory reads them. Else the last answer is the wanted one, earlier turns
are context. Turns of tools are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import (
    Format,
    RawLine,
    Rendered,
    Row,
    demonstration,
    needs_text,
    not_of_kind,
    preference,
    thumb,
)

_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant",
    "system": "system",
}  # fmt: skip
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def _matches(row: Row) -> bool:
    return "conversations" in row


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, Mapping):
        raise InputError(f"`{where}`: an object with `from` and `value` expected", found=type(turn).__name__)
    role = turn.get("from")
    if not isinstance(role, str) or role not in _ROLES:
        raise InputError(f"`{where}.from`: this speaker is not understood", expected=", ".join(_ROLES))
    value = turn.get("value")
    if not isinstance(value, str):
        raise InputError(f"`{where}.value`: text expected", found=type(value).__name__)
    return {"role": _ROLES[role], "content": value}


def _parse(row: Row) -> list[RawLine]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise InputError("`conversations`: a list of turns expected", found=type(turns).__name__)
    messages = [_turn(turn, f"conversations.{n}") for n, turn in enumerate(turns)]
    if row.get("system"):
        messages.insert(0, {"role": "system", "content": needs_text(row["system"], "system")})
    if row.get("chosen") is not None or row.get("rejected") is not None:
        better, worse = (_answer(_turn(row.get(name), name), name) for name in ("chosen", "rejected"))
        return [preference(messages, better, worse)]
    last = max((n for n, message in enumerate(messages) if message["role"] == "assistant"), default=0)
    if not last:
        raise InputError("`conversations`: no answer")
    answer = messages[last]["content"]
    if row.get("kto_tag") is not None:
        return [thumb(messages[:last], answer, row["kto_tag"], "kto_tag")]
    return [demonstration(messages[:last], answer)]


def _answer(turn: dict[str, str], where: str) -> str:
    if turn["role"] != "assistant":
        raise InputError(f"`{where}.from`: an answer is from gpt")
    return turn["content"]


def _render(interaction: Interaction, said: Sequence[Feedback], kind: FeedbackKind) -> Rendered:
    made = Rendered(left_out=not_of_kind(said, kind, "sharegpt"))
    turns = [_said(m.role, m.content) for m in interaction.messages]
    for one in said:
        if one.kind is not kind:
            continue
        if kind is FeedbackKind.CORRECTION:
            made.rows.append({"conversations": [*turns, _said("assistant", one.text)]})
        elif kind is FeedbackKind.PREFERENCE:
            pair = {"chosen": _said("assistant", one.text), "rejected": _said("assistant", one.rejected)}
            made.rows.append({"conversations": turns, **pair})
        else:
            answered = [*turns, _said("assistant", interaction.answer)]
            made.rows.append({"conversations": answered, "kto_tag": one.thumb == 1})
    return made


def _said(role: str, text: str | None) -> dict[str, str]:
    return {"from": _NAMES[role], "value": text or ""}


SHAREGPT = Format(
    "sharegpt",
    _matches,
    _parse,
    _render,
    container="json",
    holds=(FeedbackKind.CORRECTION, FeedbackKind.PREFERENCE, FeedbackKind.THUMB),
    one_kind=True,
)
