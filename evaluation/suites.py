"""Suites: one contract, `(name, items, size, digest)`, from JSON Lines or YAML; a frozen one cannot change unseen.

An item is `{"id", "prompt" | "messages", "reference", "scorer", "choices"?, "max_new_tokens"?, "slice"?, "system"?,
"threshold"?, "unseen"?, "variants"?}`. A JSON Lines file holds one a line. A YAML file holds a list of them, or a
mapping with `items` and with defaults for all of them (`scorer`, `system`, `max_new_tokens`, `slice`, `threshold`,
`unseen`). The suite's name is the file's stem; its digest is over its items, whatever the file looks like. Scorers and
what `reference` means to each: `evaluation/scorers`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import EvaluationError
from data_contracts.digests import digest
from data_contracts.records import EvalItem
from evaluation.scorers.registry import known, scorer

RESERVED = ("target", "incidents", "fragility", "probes")
"""Suites that Tidemill makes: of feedback, of incidents, of other suites, of the training rows."""
MAX_NEW_TOKENS = 4096
"""Of one answer."""
SUFFIXES = (".jsonl", ".yaml", ".yml")
_DEFAULTS = ("scorer", "system", "max_new_tokens", "slice", "threshold", "unseen")
_FIELDS = ("id", "reference", "scorer", "choices", "max_new_tokens", "slice", "threshold", "unseen", "variants")
_KEYS = ("id", "prompt", "messages", "system", *_FIELDS[1:])


@dataclass(frozen=True)
class Suite:
    """A suite as it is on disk."""

    name: str
    items: tuple[EvalItem, ...]
    path: Path
    version: int | None = None
    """Of the lock it was frozen under; None if it is not frozen."""

    @property
    def size(self) -> int:
        return len(self.items)

    @property
    def digest(self) -> str:
        return suite_digest(self.items)


def item_digest(item: EvalItem) -> str:
    """Digest of what is asked and how it is scored; its name, suite, slice and variants do not count."""
    # A threshold that is not set is no part of it: items from before there was one keep their digest.
    without = {"id", "suite", "slice", "unseen", "variants"} | ({"threshold"} if item.threshold is None else set())
    return digest(item.model_dump(exclude=without))


def suite_digest(items: Sequence[EvalItem]) -> str:
    """Digest of a suite: its items with their ids, in any order."""
    return digest(sorted([item.id, item_digest(item)] for item in items))


def _messages(data: Mapping[str, Any]) -> list[dict[str, str]]:
    if ("prompt" in data) == ("messages" in data):
        raise ValueError("give either `prompt` or `messages`")
    messages = data.get("messages", [{"role": "user", "content": data.get("prompt")}])
    if not isinstance(messages, list):
        raise ValueError("`messages` is a list of {role, content}")
    messages = list(messages)
    if data.get("system"):
        messages.insert(0, {"role": "system", "content": data["system"]})
    return messages


def parse_item(data: Any, suite: str) -> EvalItem:
    """One item of a suite file, already parsed.

    Raises:
        ValueError: a missing or unknown key, or a value of the wrong type.
    """
    if not isinstance(data, dict):
        raise ValueError(f"an item is a JSON object, not {type(data).__name__}")
    unknown = sorted(str(key) for key in set(data) - set(_KEYS))
    if unknown:
        raise ValueError(f"unknown key `{unknown[0]}`; known: {', '.join(_KEYS)}")
    missing = [key for key in ("id", "reference") if key not in data]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing")
    fields = {key: data[key] for key in _FIELDS if key in data}
    try:
        json.dumps(data, ensure_ascii=False, default=str).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("text that is not valid Unicode (half a surrogate pair)") from error
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
    if not 1 <= item.max_new_tokens <= MAX_NEW_TOKENS:
        found.append(f"max_new_tokens must be at least 1 and at most {MAX_NEW_TOKENS}, not {item.max_new_tokens}")
    if any(not said.strip() for said in item.variants):
        found.append("a variant is empty")
    if item.threshold is not None and not (math.isfinite(item.threshold) and 0.0 < item.threshold <= 1.0):
        found.append(f"threshold must be above 0 and at most 1, not {item.threshold}")
    try:
        how = scorer(item.scorer)
    except EvaluationError as error:
        return [*found, f"scorer `{item.scorer}`: {error.message}; known: {', '.join(known())}"]
    try:
        return found + list(how.problems(item)) if item.reference.strip() else found
    except Exception as error:  # a third-party scorer may do anything
        return [*found, f"scorer `{item.scorer}` failed on it: {error!r:.200}"]


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


def _json_lines(path: Path) -> list[tuple[str, Any]]:
    """(place, item) of a JSON Lines file."""
    found = []
    for number, line in enumerate(_text(path).split("\n"), start=1):  # not at U+2028, which JSON may hold
        if line.strip():
            try:
                found.append((f"{path}:{number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                raise EvaluationError("a line is not an item", where=f"{path}:{number}", found=error) from error
    return found


def _yaml(path: Path) -> list[tuple[str, Any]]:
    """(place, item) of a YAML file, with its defaults filled in."""
    import yaml

    try:
        data = yaml.safe_load(_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # a date or a number that is none is a ValueError
        raise EvaluationError("not valid YAML", where=path, found=str(error).replace("\n", " ")) from error
    defaults: dict[str, Any] = {}
    if isinstance(data, dict):
        unknown = sorted(str(key) for key in set(data) - {"items", *_DEFAULTS})
        if unknown:
            expected = ", ".join(("items", *_DEFAULTS))
            raise EvaluationError("unknown key of a suite", where=path, expected=expected, found=unknown[0])
        defaults, data = {key: data[key] for key in _DEFAULTS if key in data}, data.get("items")
    if not isinstance(data, list):
        raise EvaluationError(
            "a YAML suite is a list of items, or a mapping with `items`", where=path, found=type(data).__name__
        )
    return [
        (f"{path}: item {number}", {**defaults, **one} if isinstance(one, dict) else one)
        for number, one in enumerate(data, start=1)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError("a suite cannot be read", where=path, expected="UTF-8 text", found=error) from error


def read_suite(path: Path) -> Suite:
    """Read and lint a suite, without looking at its lock.

    Raises:
        EvaluationError: no such file, an item that is none (with its place), or what `lint` finds.
    """
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise EvaluationError(
            "no such suite",
            where=path,
            expected="a JSON Lines or YAML file",
            found=f"a {path.suffix or 'nameless'} file" if path.is_file() else "nothing",
        )
    items = []
    for place, data in _json_lines(path) if path.suffix == ".jsonl" else _yaml(path):
        try:
            items.append(parse_item(data, path.stem))
        except ValueError as error:
            kind = "line" if path.suffix == ".jsonl" else "entry"
            raise EvaluationError(f"a {kind} is not an item", where=place, found=error) from error
    lint(items, path)
    return Suite(path.stem, tuple(items), path)


def open_suite(path: Path) -> Suite:
    """Read and lint a suite and hold it to its lock, if it has one.

    Raises:
        EvaluationError: see `read_suite`; or the suite was changed after it was frozen, with the items that were.
    """
    from evaluation.freezing import check_frozen

    return check_frozen(read_suite(path))


def load_suite(path: Path) -> list[EvalItem]:
    """The items of `open_suite`."""
    return list(open_suite(path).items)


def suite_files(place: Path) -> list[Path]:
    """A suite file, or those of a folder by name.

    Raises:
        EvaluationError: a folder without any.
    """
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.iterdir() if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise EvaluationError("a folder without suites", where=place, expected=f"files ending in {', '.join(SUFFIXES)}")
    return found


def load_suites(places: Iterable[Path]) -> dict[str, Suite]:
    """Suites of files and folders, by name, in the order given.

    Raises:
        EvaluationError: see `open_suite`; two suites of one name, or a name that is not to be had.
    """
    found: dict[str, Suite] = {}
    for path in (file for place in places for file in suite_files(place)):
        suite = open_suite(path)
        if suite.name in RESERVED:
            raise EvaluationError("this name belongs to a suite made of feedback", where=path, found=suite.name)
        if suite.name in found:
            raise EvaluationError("two suites have the same name", where=path, found=found[suite.name].path)
        found[suite.name] = suite
    return found


def refuse_unfit_gate(
    suites: Mapping[str, Sequence[EvalItem]],
    *,
    judge: bool,
    shown: Collection[str] = (),
    where: object = "evaluation.anchors",
) -> None:
    """A judge model may add to a gate, never be all of it; and it must be there.

    Args:
        judge: whether the profile has a judge model.
        shown: suites the policy only shows.

    Raises:
        EvaluationError: every suite that decides has items scored by a judge model, or some have and there is none.
    """
    judged = [item for suite in suites.values() for item in suite if scorer(item.scorer).judged]
    decide = [suite for name, suite in suites.items() if suite and name not in shown]
    if judged and not any(all(not scorer(item.scorer).judged for item in suite) for suite in decide):
        raise EvaluationError(
            "a judge model would be the only gate",
            where=where,
            expected="at least one suite that decides and that no judge scores any item of",
            found=", ".join(suites),
            fix="add a suite with exact, contains, regex, json, likelihood or another such scorer",
        )
    rubrics = [item for item in judged if item.scorer == "rubric"]
    if rubrics and not judge:
        raise EvaluationError(
            "scorer `rubric` needs a judge model",
            where=f"{rubrics[0].suite}/{rubrics[0].id}",
            expected="evaluation.judge in the profile",
            found="none",
            fix="set evaluation.judge (url and model), or take the suite from evaluation.anchors",
        )
