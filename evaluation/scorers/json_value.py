"""`json`: the answer holds JSON that equals the reference."""

from __future__ import annotations

import json
import re
from typing import Any

from data_contracts.records import EvalItem
from evaluation.scorers.base import TextScorer
from evaluation.scorers.text import normalise

NO_JSON = object()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def find_json(answer: str, default: Any = None) -> Any:
    """The first JSON value in an answer, also inside a code fence; `default` if there is none.

    Scalars count only when they are the whole answer. At most 50 starting points are tried.
    """
    decoder = json.JSONDecoder(parse_constant=_no_number)
    text = re.sub(r"```[a-zA-Z]*", "", answer).strip()
    try:
        return decoder.decode(text)
    except (ValueError, RecursionError):
        pass
    starts = [i for i, char in enumerate(text) if char in "{["][:50]
    for start in starts:
        try:
            return decoder.raw_decode(text, start)[0]
        except (ValueError, RecursionError):
            continue
    return default


def _equal(found: Any, wanted: Any) -> bool:
    if wanted is None:
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(k in found and _equal(found[k], v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(_equal(f, w) for f, w in zip(found, wanted, strict=True))
        )
    if isinstance(wanted, str):
        return isinstance(found, str) and normalise(found) == normalise(wanted)
    return type(found) is type(wanted) and bool(found == wanted)


def json_matches(answer: str, reference: str) -> bool:
    """The answer holds JSON equal to the reference; of an object, only the keys the reference names."""
    found = find_json(answer)
    return found is not None and _equal(found, json.loads(reference))


def _problems(item: EvalItem) -> list[str]:
    try:
        wanted = json.loads(item.reference, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return [f"the reference is not JSON: {error}"]
    if wanted is None:
        return ["the reference accepts any JSON"]
    return ["the reference accepts any object"] if wanted == {} else []


SCORER = TextScorer(lambda item, answer: float(json_matches(answer, item.reference)), _problems)
