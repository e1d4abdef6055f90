"""Alpaca: `{"instruction", "input", "output"}`; the prompt is the instruction, a line break and the input.

With `system` and `history` (pairs of question and answer); `chosen` and `rejected` in the place of `output` make it a
preference, `kto_tag` (true or false) a thumb on the output, as LLaMA-Factory reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction, Message
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


def _matches(row: Row) -> bool:
    return "instruction" in row and ("output" in row or ("chosen" in row and "rejected" in row))


def _parse(row: Row) -> list[RawLine]:
    messages = []
    if row.get("system"):
        messages.append({"role": "system", "content": needs_text(row["system"], "system")})
    for n, turn in enumerate(_history(row.get("history"))):
        for role, text in zip(("user", "assistant"), turn, strict=True):
            messages.append({"role": role, "content": needs_text(text, f"history.{n}")})
    instruction = needs_text(row.get("instruction"), "instruction")
    given = row.get("input") or ""
    if not isinstance(given, str):
        raise InputError("`input`: text expected", found=type(given).__name__)
    messages.append({"role": "user", "content": f"{instruction}\n{given}" if given else instruction})
    if row.get("chosen") is not None or row.get("rejected") is not None:
        better, worse = (needs_text(row.get(name), name) for name in ("chosen", "rejected"))
        return [preference(messages, better, worse)]
    output = needs_text(row.get("output"), "output")
    if row.get("kto_tag") is not None:
        return [thumb(messages, output, row["kto_tag"], "kto_tag")]
    return [demonstration(messages, output)]


def _history(value: Any) -> list[list[Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in value):
        raise InputError("`history`: a list of [question, answer] expected", found=type(value).__name__)
    return value


def _render(interaction: Interaction, said: Sequence[Feedback], kind: FeedbackKind) -> Rendered:
    made = Rendered(left_out=not_of_kind(said, kind, "alpaca"))
    wanted = [one for one in said if one.kind is kind]
    prompt = _prompt(interaction.messages)
    if prompt is None:
        if wanted:
            made.left_out["alpaca: the conversation is not question, answer, ..., question"] += len(wanted)
        return made
    for one in wanted:
        if kind is FeedbackKind.CORRECTION:
            made.rows.append({**prompt, "output": one.text})
        elif kind is FeedbackKind.PREFERENCE:
            made.rows.append({**prompt, "chosen": one.text, "rejected": one.rejected})
        elif interaction.answer.strip():
            made.rows.append({**prompt, "output": interaction.answer, "kto_tag": one.thumb == 1})
        else:
            made.left_out["alpaca: a thumb on a blank answer"] += 1
    return made


def _prompt(messages: Sequence[Message]) -> dict[str, Any] | None:
    """The messages as Alpaca's fields, or None where they do not fit."""
    rest = list(messages)
    made: dict[str, Any] = {}
    if rest and rest[0].role == "system" and rest[0].content.strip():
        made["system"] = rest.pop(0).content
    roles = [message.role for message in rest]
    if len(rest) % 2 == 0 or roles != ["user", "assistant"] * (len(rest) // 2) + ["user"]:
        return None
    if not all(message.content.strip() for message in rest):
        return None
    made |= {"instruction": rest[-1].content, "input": ""}
    if len(rest) > 1:
        made["history"] = [[rest[n].content, rest[n + 1].content] for n in range(0, len(rest) - 1, 2)]
    return made


ALPACA = Format(
    "alpaca",
    _matches,
    _parse,
    _render,
    container="json",
    holds=(FeedbackKind.CORRECTION, FeedbackKind.PREFERENCE, FeedbackKind.THUMB),
    one_kind=True,
)
