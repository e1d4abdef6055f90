"""Content digests: canonical JSON and SHA-256, the same for the same facts whatever the key order or machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"naive datetime in a digest: {value!r}")
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(value, Decimal):
        return str(value.normalize())
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return value.as_posix()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="python")
    raise TypeError(f"cannot canonicalise {type(value).__name__}")


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys, no spaces, no NaN; datetimes in UTC with microseconds.

    Raises:
        ValueError: a NaN, an infinity or a datetime without a time zone.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
    ).encode("utf-8")


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def salted_digest(salt: bytes, value: Any) -> str:
    """SHA-256(salt || canonical JSON): a row's identity, unlinkable once its salt is deleted."""
    return hashlib.sha256(salt + canonical_json(value)).hexdigest()


def set_digest(digests: Iterable[str]) -> str:
    """Digest of a set of digests; the order they come in does not matter, a repeat does not count."""
    return digest(sorted(set(digests)))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks of 1 MiB."""
    sha = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def tree_digest(folder: Path, *, exclude: frozenset[str] = frozenset()) -> str:
    """Digest of {relative path: file digest} of a folder.

    Symbolic links are refused: a link can point elsewhere after the digest was taken.

    Args:
        folder: an existing folder.
        exclude: names of files (relative POSIX paths) that do not count.
    """
    files: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise ValueError(f"symbolic link in {folder}: {path.name}")
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in exclude:
            files[name] = file_digest(path)
    return digest(files)
