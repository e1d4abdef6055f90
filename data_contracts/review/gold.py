"""Gold items from a file: the right verdict is known, so they show how well labellers judge. One JSON object a line:

{"guideline": "quarantine", "reason": "uncorroborated", "messages": [{"role": "user", "content": "..."}],
 "answer": "what the model said", "proposed": "the correction to judge", "expected": {"verdict": "reject"}}
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from configs.errors import InputError
from data_contracts.records import Record, ReviewAnswer, ReviewPayload
from data_contracts.review.desk import Desk


class GoldLine(ReviewPayload):
    """One line of the file."""

    guideline: str = "quarantine"
    reason: str = ""
    expected: ReviewAnswer


class GoldReport(Record):
    """What was read: bad lines are named, good ones are kept."""

    ids: tuple[str, ...]
    errors: tuple[str, ...]


def add_gold_file(desk: Desk, path: Path, by: str) -> GoldReport:
    """Add every good line.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError("the file cannot be read", where=path, found=error.strerror or error) from error
    ids: list[str] = []
    errors: list[str] = []
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            line = GoldLine.model_validate_json(raw)
            shown = ReviewPayload.model_validate(line.model_dump(exclude={"guideline", "reason", "expected"}))
            ids.append(desk.add_gold(shown, line.expected, guideline=line.guideline, reason=line.reason, by=by))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            errors.append(f"line {number}: `{place}`: {first['msg']}")
        except InputError as error:
            errors.append(f"line {number}: {error}")
    return GoldReport(ids=tuple(dict.fromkeys(ids)), errors=tuple(errors))
