"""Suites: JSON Lines in, checked items out; a suite's digest is over its items, whatever the file looks like.

One line is one item:
`{"id", "prompt" | "messages", "reference", "scorer", "choices"?, "max_new_tokens"?, "slice"?, "system"?, "variants"?}`.
The suite's name is the file's stem. Scorers and what `reference` means to them: `evaluation/scoring.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import EvaluationError
from data_contracts.digests import digest
from data_contracts.records import EvalItem

REFUSAL_REFERENCES = ("refuse", "answer")
_KEYS = ("id", "prompt", "messages", "system", "reference", "scorer", "choices", "max_new_tokens", "slice", "variants")


def item_digest(item: EvalItem) -> str:
    """Digest of what is asked and how it is scored; its name, suite, slice and variants do not count."""
    return digest(item.model_dump(exclude={"id", "suite", "slice", "variants"}))


def suite_digest(items: Sequence[EvalItem]) -> str:
    """Digest of a suite: its items with their ids, in any order."""
    return digest(sorted([item.id, item_digest(item)] for item in items))


def _messages(data: dict[str, Any]) -> list[dict[str, str]]:
    if ("prompt" in data) == ("messages" in data):
        raise ValueError("give either `prompt` or `messages`")
    messages = list(data["messages"]) if "messages" in data else [{"role": "user", "content": data["prompt"]}]
    if data.get("system"):
        messages.insert(0, {"role": "system", "content": data["system"]})
    return messages


def parse_item(data: Any, suite: str) -> EvalItem:
    """One line of a suite file, already parsed as JSON.

    Raises:
        ValueError: a missing or unknown key, or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"an item is a JSON object, not {type(data).__name__}")
    unknown = sorted(set(data) - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown key `{unknown[0]}`; known: {', '.join(_KEYS)}")
    missing = [key for key in ("id", "reference") if key not in data]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing")
    fields = {
        key: data[key]
        for key in ("id", "reference", "scorer", "choices", "max_new_tokens", "slice", "variants")
        if key in data
    }
    try:
        return EvalItem.model_validate({**fields, "suite": suite, "messages": _messages(data)})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error


def problems_of(item: EvalItem) -> list[str]:
    """What makes an item unusable; empty if nothing does. (Time-bounded matching is the scorer's part.)"""
    found = []
    if not item.id.strip():
        found.append("the id is empty")
    if not item.reference.strip():
        found.append("the reference is empty: every answer would be right or none")
    if not item.messages or item.messages[-1].role != "user" or not item.messages[-1].content.strip():
        found.append("the conversation must end with a user message that says something")
    if item.max_new_tokens < 1:
        found.append(f"max_new_tokens must be at least 1, not {item.max_new_tokens}")
    if any(not said.strip() for said in item.variants):
        found.append("a variant is empty")
    if item.scorer == "choice":
        if len(item.choices) < 2 or len(set(item.choices)) != len(item.choices):
            found.append("scorer `choice` needs two or more different choices")
        if item.reference not in item.choices:
            found.append("the reference must be one of the choices")
        if any(not choice.strip() for choice in item.choices):
            found.append("a choice is empty")
    elif item.scorer == "regex":
        try:
            re.compile(item.reference)
        except re.error as error:
            found.append(f"the regular expression does not compile: {error}")
    elif item.scorer == "json":
        try:
            json.loads(item.reference)
        except json.JSONDecodeError as error:
            found.append(f"the reference is not JSON: {error.msg}")
    elif item.scorer == "refusal" and item.reference not in REFUSAL_REFERENCES:
        found.append("the reference of scorer `refusal` is `refuse` or `answer`")
    return found


def lint(items: Sequence[EvalItem], where: object = "suite") -> None:
    """Check a suite as a whole.

    Raises:
        EvaluationError: no items, two with one id, or an item that cannot be scored; the first problem is named.
    """
    if not items:
        raise EvaluationError("a suite without items", where=where, expected="at least one item")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise EvaluationError("two items have the same id", where=where, found=item.id, fix="rename one of them")
        seen.add(item.id)
        for problem in problems_of(item):
            raise EvaluationError("an item cannot be scored", where=f"{where}: {item.id}", found=problem)


def load_suite(path: Path) -> list[EvalItem]:
    """Read and lint a suite.

    Raises:
        EvaluationError: no such file, a line that is not an item (with its number), or what `lint` finds.
    """
    if not path.is_file():
        raise EvaluationError("no such suite", where=path, expected="a JSON Lines file")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            items.append(parse_item(json.loads(line), path.stem))
        except ValueError as error:
            raise EvaluationError("a line is not an item", where=f"{path}:{number}", found=error) from error
    lint(items, path)
    return items
