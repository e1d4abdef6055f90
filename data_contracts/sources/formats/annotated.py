"""What Label Studio's and Argilla's exports share: projects name their fields and questions as they like.

These names are understood; what a project calls otherwise is left out and counted, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs.errors import InputError
from data_contracts.records import Feedback, FeedbackKind, Interaction
from data_contracts.sources.formats.base import RawLine, chat, messages_of, needs_text

CONVERSATION = ("messages", "conversation", "dialogue", "dialog", "chat")
PROMPT = ("prompt", "question", "instruction", "query", "input", "text")
ANSWER = ("answer", "response", "output", "completion", "generation", "model_answer", "model_response")
PAIRS = (
    ("answer_a", "answer_b"), ("response_a", "response_b"), ("answer1", "answer2"), ("response1", "response2"),
    ("text1", "text2"), ("left", "right"),
)  # fmt: skip
_COMMENT = ("comment", "reason", "rationale", "note", "explanation")
_CORRECTION = ("correct", "answer", "response", "rewrite", "edit", "completion", "output", "improved")
_THUMB = ("thumb", "good", "quality", "verdict", "helpful", "acceptable")
_GOOD = frozenset({"good", "yes", "up", "thumbs up", "positive", "acceptable", "good answer", "1", "true"})
_BAD = frozenset({"bad", "no", "down", "thumbs down", "negative", "unacceptable", "bad answer", "-1", "0", "false"})


def prompt_of(fields: Mapping[str, Any]) -> list[dict[str, str]]:
    """The conversation of a task or record.

    Raises:
        InputError: none of the known fields is there.
    """
    for name in CONVERSATION:
        if isinstance(fields.get(name), list):
            return messages_of(fields[name], name)
    for name in PROMPT:
        if fields.get(name) is not None:
            return [{"role": "user", "content": needs_text(fields[name], name)}]
    raise InputError("no prompt", expected="one of the fields " + ", ".join((*CONVERSATION, *PROMPT)))


def answer_of(fields: Mapping[str, Any]) -> str:
    """What the model had said; nothing where no known field says it."""
    return next((fields[name] for name in ANSWER if isinstance(fields.get(name), str)), "")


def pair_of(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """The names of the fields that hold two answers to choose from."""
    return next((p for p in PAIRS if isinstance(fields.get(p[0]), str) and isinstance(fields.get(p[1]), str)), None)


def preference_of(fields: Mapping[str, Any], chosen: Any) -> dict[str, Any] | None:
    """A choice between two fields, given by the field's name, or by `left` and `right`; None if it is none."""
    pair = pair_of(fields)
    if pair is None or not isinstance(chosen, str):
        return None
    sides: dict[Any, int] = {pair[0]: 0, pair[1]: 1, "left": 0, "right": 1}
    side = sides.get(chosen)
    if side is None:
        return None
    return {"kind": "preference", "text": fields[pair[side]], "rejected": fields[pair[1 - side]]}


def written(name: str, value: str) -> dict[str, Any] | None:
    """A written answer to a question, by the question's name: a comment, a correction, or None."""
    name = name.lower()
    if any(word in name for word in _COMMENT):
        return {"kind": "comment", "text": value}
    if any(word in name for word in _CORRECTION):
        return {"kind": "correction", "text": value}
    return None


def chosen_word(name: str, value: str) -> dict[str, Any] | None:
    """A chosen word, by the question's name and the word: a thumb or None."""
    return thumb_word(value) if any(word in name.lower() for word in _THUMB) else None


def thumb_word(value: str) -> dict[str, Any] | None:
    """A word for good or bad as a thumb, or None."""
    word = value.strip().lower()
    if word not in _GOOD | _BAD:
        return None
    return {"kind": "thumb", "thumb": 1 if word in _GOOD else -1}


def line_of(fields: Mapping[str, Any], said: list[dict[str, Any]], **more: Any) -> RawLine:
    """A line of a task's or record's fields, where anything was said of it."""
    answer = answer_of(fields)
    if not answer:
        answer = next((one["rejected"] for one in said if one["kind"] == "preference"), "")
    return {"interaction": {"messages": prompt_of(fields), "answer": answer, **more}, "feedback": said}


def fields_of(interaction: Interaction, pair: Feedback | None = None) -> dict[str, Any]:
    """An interaction as the fields of a task or record; with the two answers of a preference as `answer_a`, `_b`."""
    fields: dict[str, Any] = {"messages": chat(interaction.messages), "prompt": interaction.prompt}
    fields["answer"] = interaction.answer
    if pair is not None:
        fields |= {"answer_a": pair.text, "answer_b": pair.rejected}
    return fields


def groups(said: Sequence[Feedback]) -> list[tuple[Feedback | None, list[Feedback]]]:
    """Feedback by task: each preference brings its own two answers, the rest goes together."""
    pairs = [one for one in said if one.kind is FeedbackKind.PREFERENCE]
    rest = [one for one in said if one.kind is not FeedbackKind.PREFERENCE]
    made: list[tuple[Feedback | None, list[Feedback]]] = [(one, [one]) for one in pairs]
    return [(None, rest), *made] if rest or not made else made
