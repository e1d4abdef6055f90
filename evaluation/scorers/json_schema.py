"""`json_schema`: the answer holds JSON that a JSON schema (draft 2020-12) accepts.

Nothing is fetched: `$ref` may point into the schema itself only. A `pattern` is matched within a bounded time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_contracts.records import EvalItem
from evaluation.patterns import search_all
from evaluation.scorers.base import TextScorer
from evaluation.scorers.json_value import NO_JSON, find_json

_TIED = ("patternProperties", "$dynamicRef", "$recursiveRef")
"""Keywords that are refused: an unbounded match, and references that need no schema of a test item."""


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        for inner in value.values():
            yield from _keywords(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keywords(inner)


def _problems(item: EvalItem) -> list[str]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        schema = json.loads(item.reference)
    except (ValueError, RecursionError) as error:
        return [f"the reference is not JSON: {error}"]
    if not isinstance(schema, dict) or not schema:
        return ["the reference is no JSON schema: expected an object with keywords"]
    for key, value in _keywords(schema):
        if key in _TIED and not isinstance(value, bool):
            return [f"`{key}` is not supported in a test item's schema"]
        if key == "$ref" and not str(value).startswith("#"):
            return [f"`$ref` may point into the schema only, not to {value}"]
    try:
        Draft202012Validator.check_schema(schema)
        for key, value in _keywords(schema):
            if key == "$ref":
                _resolve(schema, str(value))
        samples: tuple[Any, ...] = (None, True, 0.5, "", "a", [], [[]], {})
        if all(Draft202012Validator(schema).is_valid(value) for value in samples):
            return ["the schema accepts anything"]
    except SchemaError as error:
        return [f"the reference is no JSON schema: {error.message}"]
    except RecursionError:
        return ["the schema refers to itself without end"]
    except LookupError as error:
        return [f"`$ref` points to nothing: {error}"]
    return []


def patterns_of(schema: Any) -> list[str]:
    """Its regular expressions."""
    return [value for key, value in _keywords(schema) if key == "pattern" and isinstance(value, str)]


def _resolve(schema: Any, reference: str) -> None:
    """Raises LookupError unless a `$ref` into the schema points to something."""
    from urllib.parse import unquote

    inner = unquote(reference[1:])
    if not inner.startswith("/"):
        if inner and inner not in [value for key, value in _keywords(schema) if key == "$anchor"]:
            raise LookupError(reference)
        return
    found = schema
    for part in inner[1:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise LookupError(reference)


def _validator(schema: Any, where: str) -> Any:
    from jsonschema import Draft202012Validator, ValidationError
    from jsonschema.validators import extend

    def pattern(_: Any, wanted: str, found: Any, __: Any) -> Iterator[ValidationError]:
        if isinstance(found, str) and not search_all([(where, wanted, found)], ignore_case=False)[0]:
            yield ValidationError(f"{found!r} does not match {wanted!r}")

    return extend(Draft202012Validator, {"pattern": pattern})(schema)


def accepted(answer: str, schema: Any, where: str = "json_schema") -> bool:
    """The first JSON value in the answer is accepted by the schema.

    Raises:
        EvaluationError: a `pattern` takes too long.
    """
    found = find_json(answer, NO_JSON)
    if found is NO_JSON:
        return False
    try:
        return bool(_validator(schema, where).is_valid(found))
    except (ValueError, ArithmeticError, RecursionError):  # numbers or depth that no schema can be held to
        return False


SCORER = TextScorer(
    lambda item, answer: float(accepted(answer, json.loads(item.reference), f"{item.suite}/{item.id}")), _problems
)
