"""Freezing: `NAME.lock.json` beside a suite says what its items were; from then on a change is an error.

The lock holds version, size, digest and each item's digest, no text. A wanted change is frozen again, as
the next version.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from configs.errors import EvaluationError
from data_contracts.digests import digest
from data_contracts.records import Record, UtcDatetime, utc_now
from evaluation.suites import Suite, item_digest
from models.jobs import write_json

SHOWN = 8
"""Items an error names of each kind."""


class Lock(Record):
    """What a suite was when it was frozen."""

    name: str
    version: int = Field(ge=1)
    size: int
    digest: str
    items: dict[str, str]
    """Item id -> its digest."""
    frozen_at: UtcDatetime
    marks: str = ""
    """Digest of the items' slices, variants and `unseen`: they change no answer, but what is made of it. Empty in locks
    from before there was one."""


def marks_of(suite: Suite) -> str:
    """Digest of what items say of themselves beside what is asked."""
    told = sorted([item.id, item.slice, item.unseen, list(item.variants)] for item in suite.items)
    return digest(["marks", told])


def lock_path(suite: Suite) -> Path:
    """Where a suite's lock is, whether it has one or not."""
    return suite.path.with_name(f"{suite.path.stem}.lock.json")


def read_lock(suite: Suite) -> Lock | None:
    """The lock of a suite, or None.

    Raises:
        EvaluationError: it is damaged, or another suite's.
    """
    path = lock_path(suite)
    if not path.is_file():
        return None
    try:
        lock = Lock.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise EvaluationError("a suite's lock cannot be read", where=path, found=error) from error
    if lock.name != suite.name or lock.size != len(lock.items):
        raise EvaluationError("a suite's lock is not this suite's", where=path, expected=suite.name, found=lock.name)
    return lock


def changes(suite: Suite, lock: Lock) -> dict[str, list[str]]:
    """Ids of items that were `changed`, `added` or `removed` since; empty lists if none."""
    now = {item.id: item_digest(item) for item in suite.items}
    return {
        "changed": sorted(id for id in now.keys() & lock.items.keys() if now[id] != lock.items[id]),
        "added": sorted(now.keys() - lock.items.keys()),
        "removed": sorted(lock.items.keys() - now.keys()),
    }


def _in_words(found: dict[str, list[str]]) -> str:
    parts = []
    for what, ids in found.items():
        if ids:
            more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
            parts.append(f"{what}: {', '.join(ids[:SHOWN])}{more}")
    return "; ".join(parts)


def check_frozen(suite: Suite) -> Suite:
    """The suite with its frozen version; as it is if it was never frozen.

    Raises:
        EvaluationError: it was changed since, with the items that were.
    """
    lock = read_lock(suite)
    if lock is None:
        return suite
    if suite.digest != lock.digest:
        raise EvaluationError(
            "a frozen suite was changed: its scores would not compare with earlier ones",
            where=suite.path,
            expected=f"version {lock.version}, {lock.size} items, digest {lock.digest[:12]}",
            found=_in_words(changes(suite, lock)),
            fix="undo the change, or `tidemill suite freeze --new-version`",
        )
    if lock.marks and lock.marks != marks_of(suite):
        raise EvaluationError(
            "a frozen suite was changed in how its items count: slices, variants or `unseen`",
            where=suite.path,
            expected=f"version {lock.version} as it was frozen",
            found="other marks",
            fix="undo the change, or `tidemill suite freeze --new-version`",
        )
    return replace(suite, version=lock.version)


def freeze(suite: Suite, *, new_version: bool = False, now: datetime | None = None) -> Lock:
    """Write the lock of a suite; one that is frozen as it is stays as it is.

    Args:
        suite: from `read_suite`.
        new_version: a suite that was changed since it was frozen becomes the next version.

    Raises:
        EvaluationError: it was changed since and `new_version` was not asked for.
    """
    lock, marks, version = read_lock(suite), marks_of(suite), 1
    if lock is not None:
        if (lock.digest, lock.marks) == (suite.digest, marks):
            return lock
        if not new_version:
            check_frozen(suite)
        only_marks = lock.digest == suite.digest and not lock.marks  # a lock from before there were any gets its own
        version = lock.version if only_marks else lock.version + 1
    made = Lock(
        name=suite.name,
        version=version,
        size=suite.size,
        digest=suite.digest,
        items={item.id: item_digest(item) for item in sorted(suite.items, key=lambda item: item.id)},
        frozen_at=now or utc_now(),
        marks=marks,
    )
    write_json(lock_path(suite), made.model_dump(mode="json"))
    return made
