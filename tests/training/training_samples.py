"""A small snapshot and a job on the tiny base."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.schema import TrainingSection
from data_contracts.records import Message, SnapshotRow
from data_contracts.snapshots import publish
from models.files import model_digest

PAIRS = [
    ("Where is my parcel?", "It left the warehouse."),
    ("Can I pay by invoice?", "Yes, within thirty days."),
    ("How do I return this?", "Print the label from your account page."),
    ("Do you ship to Austria?", "Yes, in three days."),
    ("What does the annual plan cost?", "Ninety euros."),
    ("How long is the warranty?", "Two years."),
    ("Is the blue one available?", "Again on Monday."),
    ("Can I change my address?", "Yes, in the settings."),
]


def snapshot_rows() -> list[SnapshotRow]:
    return [
        SnapshotRow(
            digest=f"{number:064x}",
            split="train",
            source="correction",
            messages=(Message(role="user", content=question),),
            completion=answer,
            row_id=f"row-{number}",
        )
        for number, (question, answer) in enumerate(PAIRS)
    ]


def make_job(base: Path, root: Path, *, init_seed: int = 3, rows: list[SnapshotRow] | None = None, **section: Any):
    """A job for `run_training`; `section` overrides the training section."""
    snapshot = publish(
        root / "snapshots",
        snapshot_rows() if rows is None else rows,
        model="support-bot",
        contract_digest="c" * 64,
        base_digest=model_digest(base),
        watermark=8,
        reasons={},
        replay={},
        created_at=datetime(2026, 1, 31, tzinfo=UTC),
    )
    settings = {"rank": 8, "alpha": 16.0, "rows_per_step": 4, "learning_rate": 1e-2, "checkpoint_steps": 2, **section}
    return {
        "base_path": str(base),
        "base_digest": model_digest(base),
        "base_ref": "tiny:0",
        "snapshot_path": snapshot.path,
        "out_dir": str(root / "adapters"),
        "config": TrainingSection(**settings).model_dump(mode="json"),
        "init_seed": init_seed,
        "code_commit": "test",
        "threads": 1,
    }


def poison(model: Any, token: int, active: Callable[[], bool] = lambda: True) -> None:
    """Make a model's embedding of one token NaN, as in a base that is broken there; from when `active` says so."""

    def broken(_: Any, given: Any, out: Any) -> Any:
        return out.masked_fill((given[0] == token)[..., None], float("nan")) if active() else out

    model.get_input_embeddings().register_forward_hook(broken)
