"""A real adapter that learnt much and forgets: 12 intents of Banking77, 25 corrections each, no replay, a high rate."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loop_banking77 import INTENTS, TEST_PER_INTENT, TRAIN_PER_INTENT, label, read_split

from configs.schema import TrainingSection
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, EvalItem, Message, SnapshotRow

SYSTEM = "Name the intent of the customer's message."
FORGETFUL = TrainingSection(learning_rate=8e-4, epochs=3.0, rows_per_step=8)


@dataclass(frozen=True)
class Work:
    """What is measured: the rows that teach, and messages of the test split that nobody trained on."""

    rows: tuple[SnapshotRow, ...]
    target: tuple[EvalItem, ...]


def _asked(message: str) -> tuple[Message, ...]:
    return (Message(role="system", content=SYSTEM), Message(role="user", content=message))


def make_work(seed: int) -> Work:
    """Rows and test items of 12 intents drawn by `seed`."""
    rng = random.Random(seed)
    train, test = read_split("train.csv"), read_split("test.csv")
    intents = sorted(rng.sample(sorted(train), INTENTS))
    rows, target = [], []
    for intent in intents:
        for message in rng.sample(sorted(set(train[intent])), TRAIN_PER_INTENT):
            name = digest([message, intent])
            row = SnapshotRow(
                digest=name,
                split="train",
                source="correction",
                messages=_asked(message),
                completion=label(intent),
                row_id=name[:16],
            )
            rows.append(row)
        for message in rng.sample(sorted(set(test[intent])), TEST_PER_INTENT):
            item = EvalItem(
                id=digest([message, intent])[:16],
                suite="target",
                messages=_asked(message),
                reference=label(intent),
                max_new_tokens=16,
                slice=intent,
            )
            target.append(item)
    return Work(tuple(rows), tuple(target))


def train(
    work: Work, base: Path, root: Path, *, base_digest: str, base_ref: str, on_event: Callable[[dict[str, Any]], None]
) -> AdapterArtifact:
    """Publish the rows as a snapshot below `root` and train on it."""
    from data_contracts.snapshots import publish
    from training.launch import run_training

    snapshot = publish(
        root / "snapshots",
        work.rows,
        model="bank-bot",
        contract_digest="c" * 64,
        base_digest=base_digest,
        watermark=len(work.rows),
        reasons={},
        replay={},
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
    )
    job = {
        "base_path": str(base),
        "base_digest": base_digest,
        "base_ref": base_ref,
        "snapshot_path": snapshot.path,
        "out_dir": str(root / "adapters"),
        "config": FORGETFUL.model_dump(mode="json"),
        "init_seed": FORGETFUL.seed,
        "code_commit": "",
        "threads": 0,
    }
    return run_training(job, root / "work", on_event)
