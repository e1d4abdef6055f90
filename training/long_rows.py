"""What happens to a row longer than the context: `training.long_rows`. A system message and an answer are never cut."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from configs.errors import TrainingError
from configs.schema import LongRows
from data_contracts.records import Message
from models.prompts import prompt_ids

_NAMED = 8
"""Most rows an error names."""


def prompt_within(
    tokenizer: Any, messages: Sequence[Message], room: int, policy: LongRows = "turns"
) -> tuple[list[int] | None, bool]:
    """A conversation's tokens within `room`.

    Args:
        tokenizer: with a chat template, which sees whole turns: a question and what was answered go together.
        messages: up to the message that is answered.
        room: most tokens; may be negative.
        policy: `turns` and `truncate` leave out the oldest turns, `truncate` then cuts the last message on its left.

    Returns:
        (token ids, True if something was left out), or (None, False) where it cannot be made to fit.
    """
    ids = prompt_ids(tokenizer, messages)
    if len(ids) <= room:
        return ids, False
    kept: list[Message] | None = list(messages)
    while policy in ("turns", "truncate") and (shorter := _without_oldest_turn(kept or [])) is not None:
        kept, ids = shorter, prompt_ids(tokenizer, shorter)
        if len(ids) <= room:
            return ids, True
    cut = _end_of_last(tokenizer, kept or [], room) if policy == "truncate" else None
    return cut, cut is not None


def _last_said(messages: Sequence[Message]) -> int | None:
    """Index of the last message that is no system message; None without one."""
    return next((i for i in reversed(range(len(messages))) if messages[i].role != "system"), None)


def _without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Without the first message that is no system message, and what was answered to it; None if it is the last.

    System messages stay wherever they stand.
    """
    last = _last_said(messages)
    first = next((i for i in range(last or 0) if messages[i].role != "system"), None)
    if last is None or first is None:
        return None
    following = next(i for i in range(first + 1, last + 1) if i == last or messages[i].role == "user")
    between = [message for message in messages[first:following] if message.role == "system"]
    return [*messages[:first], *between, *messages[following:]]


def _end_of_last(tokenizer: Any, messages: Sequence[Message], room: int) -> list[int] | None:
    """Tokens of the conversation with as much of the end of its last message as fits, from the start of a word."""
    place = _last_said(messages)
    if place is None:
        return None
    last = messages[place]
    text = last.content

    def ids(start: int) -> list[int]:
        shorter = last.model_copy(update={"content": text[start:]})
        return prompt_ids(tokenizer, [*messages[:place], shorter, *messages[place + 1 :]])

    start = bisect_left(range(len(text)), True, key=lambda start: len(ids(start)) <= room)
    word = next((i + 1 for i in range(start, len(text) - 1) if text[i].isspace()), start)
    if start and not text[start - 1].isspace():
        start = word
    while start < len(text):  # a tokeniser may need more for less text, by a token or two
        found = ids(start)
        if len(found) <= room:
            return found if text[start:].strip() else None
        start += 1
    return None


def refuse_long(digests: Sequence[str], max_row_tokens: int) -> None:
    """Raise if there are rows too long for the policy `fail`.

    Raises:
        TrainingError: says how many and names some by their digests.
    """
    if not digests:
        return
    raise TrainingError(
        f"{len(digests)} rows are longer than training.max_row_tokens",
        where="rows " + ", ".join(name[:12] for name in digests[:_NAMED]) + (" ..." if len(digests) > _NAMED else ""),
        expected=f"at most {max_row_tokens} tokens of prompt and answer",
        found=f"{len(digests)} longer rows",
        fix="raise training.max_row_tokens, or set training.long_rows to `turns`, `truncate` or `drop`",
    )
