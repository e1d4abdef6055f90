"""TRL's dataset types, plain and conversational (TRL documentation, dataset formats and types).

- prompt-completion: `{"prompt", "completion"}`, a wanted answer;
- preference: `{"prompt", "chosen", "rejected"}`, or without `prompt`: then it is the longest beginning that both share,
  as in `trl.extract_prompt`;
- unpaired preference: `{"prompt", "completion", "label"}`.

Each value is a text, or a list of `{"role", "content"}`. A plain prompt is read as one message of the user. A file
holds one type, written conversational and with its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    needs_text,
    not_of_kind,
    only_answer,
    preference,
    thumb,
)


def _matches(row: Row) -> bool:
    pair = "chosen" in row and "rejected" in row
    return (pair or ("prompt" in row and "completion" in row)) and not {"instruction", "conversations"} & set(row)


def _parse(row: Row) -> list[RawLine]:
    if "chosen" in row or "rejected" in row:
        return [_preference(row)]
    messages = _prompt(row.get("prompt"), "prompt")
    completion = only_answer(row.get("completion"), "completion")
    if row.get("label") is None:
        return [demonstration(messages, completion)]
    return [thumb(messages, completion, row["label"], "label")]


def _prompt(value: Any, where: str) -> list[dict[str, str]]:
    if isinstance(value, str):
        return [{"role": "user", "content": needs_text(value, where)}]
    return messages_of(value, where)


def _preference(row: Row) -> RawLine:
    prompt: Any = row.get("prompt")
    chosen: Any = row.get("chosen")
    rejected: Any = row.get("rejected")
    if type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        found = f"{type(chosen).__name__} and {type(rejected).__name__}"
        raise InputError("`chosen` and `rejected`: two texts or two lists of messages expected", found=found)
    # A plain prompt beside whole conversations is a label of theirs: the prompt is what they share.
    if prompt is None or isinstance(prompt, str) is not isinstance(chosen, str):
        if isinstance(chosen, list):
            chosen, rejected = messages_of(chosen, "chosen"), messages_of(rejected, "rejected")
        end = _shared(chosen, rejected)
        prompt, chosen, rejected = chosen[:end], chosen[end:], rejected[end:]
        if not prompt or (isinstance(prompt, str) and not prompt.strip()):
            raise InputError("`chosen` and `rejected` share no beginning that could be the prompt")
    chosen, rejected = only_answer(chosen, "chosen"), only_answer(rejected, "rejected")
    return preference(_prompt(prompt, "prompt"), chosen, rejected)


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Length of the longest shared beginning as TRL takes it: something is left of both, and no space ends it."""
    for n, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return n - 1 if n and one[n - 1] == " " else n
    return max(min(len(one), len(other)) - 1, 0)


def _render(interaction: Interaction, said: Sequence[Feedback], kind: FeedbackKind) -> Rendered:
    made = Rendered(left_out=not_of_kind(said, kind, "trl"))
    prompt = chat(interaction.messages)
    for one in said:
        if one.kind is not kind:
            continue
        if kind is FeedbackKind.CORRECTION:
            made.rows.append({"prompt": prompt, "completion": chat((), one.text)})
        elif kind is FeedbackKind.PREFERENCE:
            made.rows.append({"prompt": prompt, "chosen": chat((), one.text), "rejected": chat((), one.rejected)})
        else:
            good = one.thumb == 1
            made.rows.append({"prompt": prompt, "completion": chat((), interaction.answer), "label": good})
    return made


TRL = Format(
    "trl",
    _matches,
    _parse,
    _render,
    holds=(FeedbackKind.CORRECTION, FeedbackKind.PREFERENCE, FeedbackKind.THUMB),
    one_kind=True,
)
