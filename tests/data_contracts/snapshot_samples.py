"""Rows and snapshots for the tests of snapshots."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from data_contracts.digests import salted_digest
from data_contracts.records import DatasetSnapshot, Message, SnapshotRow
from data_contracts.snapshots import publish

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def salt(n: int) -> bytes:
    """What ingest makes at random; here the same in every process."""
    return hashlib.sha256(f"salt {n}".encode()).digest()


def row(n: int, split: str = "train", source: str = "correction", **changes: Any) -> SnapshotRow:
    data = {
        "digest": salted_digest(salt(n), ["row", n]),
        "split": split,
        "source": source,
        "messages": (Message(role="user", content=f"secret question {n} ü\n<b>"),),
        "completion": f"secret answer {n}",
        "row_id": f"f{n}" if source == "correction" else "",
        "slice": f"s{n % 3}",
    }
    return SnapshotRow(**{**data, **changes})


ROWS_IN = [*(row(n) for n in range(20)), *(row(n, "target") for n in range(20, 25)), row(25, source="replay")]

FACTS: dict[str, Any] = {
    "model": "support-bot",
    "contract_digest": "c" * 64,
    "base_digest": "b" * 64,
    "watermark": 7,
    "reasons": {"cap": 2},
    "replay": {"base": "b" * 64},
    "created_at": NOW,
}


def put(root: Path, rows: Sequence[SnapshotRow] = ROWS_IN, **changes: Any) -> DatasetSnapshot:
    return publish(root, rows, **{**FACTS, **changes})
