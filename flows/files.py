"""Small files between steps: JSON Lines of records, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

R = TypeVar("R", bound=BaseModel)


def write_text(path: Path, text: str) -> None:
    """Write under a temporary name, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """One JSON object a line."""
    write_text(path, "".join(record.model_dump_json() + "\n" for record in records))


def read_records(path: Path, kind: type[R]) -> list[R]:
    """Read what `write_records` wrote."""
    with path.open(encoding="utf-8") as handle:
        return [kind.model_validate_json(line) for line in handle if line.strip()]
