"""What `tidemill train plan` shows: the cost of training on a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.snapshots import find_snapshot, list_snapshots
from configs.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from data_contracts.records import SnapshotRow
    from flows.context import Context
    from training.plan import Plan

PRIVATE_NOTE = (
    "time and memory are of an ordinary run of as many steps: under differential privacy each person drawn has a "
    "backward pass of their own, so it takes longer and holds less"
)


def snapshot_folder(root: Path, name: str | None) -> Path:
    """The folder of the named snapshot, or of the newest.

    Raises:
        NotFoundError: none.
    """
    if name is not None:
        return find_snapshot(root, name)
    known = list_snapshots(root)
    if not known:
        raise NotFoundError(
            "there is no snapshot yet",
            where=root,
            expected="a published snapshot",
            found="none",
            fix="`tidemill retrain --dry-run` plans for the rows that are there now",
        )
    return root / known[0].digest


def plan_snapshot(context: Context, name: str | None, *, quick: bool, limit_mb: float | None) -> dict[str, Any]:
    """The plan of training on a snapshot, with the digests it is about.

    Raises:
        SnapshotError: not whole, or rows of it were erased.
        TrainingError: the run cannot fit; says what would.
        PrivacyBudgetError: a private run the budget does not allow.
    """
    from data_contracts.snapshots import read_manifest, read_rows

    folder = snapshot_folder(context.state.snapshots, name)
    record, rows = read_manifest(folder), read_rows(folder, split="train")
    found = plan_context_rows(context, rows, calibrated=not quick, limit_mb=limit_mb)
    return {"snapshot": record.digest, "base": context.config.model.base, **found}


def plan_context_rows(context: Context, rows: Sequence[SnapshotRow], **options: Any) -> dict[str, Any]:
    """The plan of training on these rows by the profile, a private run's with its noise; `options` of `plan_rows`.

    A private run is planned as an ordinary one of as many steps and passes, and takes longer: its packs are as
    short as one person's rows (docs/privacy.md).

    Raises:
        PrivacyBudgetError: the budget does not allow it.
    """
    from flows.privacy import planned
    from training.plan import plan_rows

    config, private = context.config.training, planned(context, rows)
    if private is not None:
        a_step = max(1, round(len(rows) * config.epochs / private.steps))
        config = config.model_copy(update={"rows_per_step": a_step})
    found: Plan = plan_rows(rows, context.base().path, config, threads=context.config.model.threads, **options)
    facts = found.as_dict()
    if private is None:
        return facts
    note = "; ".join(said for said in (found.note, PRIVATE_NOTE) if said)
    return {**facts, "steps": private.steps, "note": note, "privacy": private.model_dump(mode="json")}


def plan_rows_shown(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Two columns."""
    flat = {key: value for key, value in facts.items() if not isinstance(value, dict) and value != ""}
    flat |= {f"privacy: {key}": value for key, value in facts.get("privacy", {}).items()}
    flat |= {f"memory: {part}": f"{mb} MB" for part, mb in facts["memory_parts_mb"].items()}
    return [{"what": key, "is": f"{value:,}" if isinstance(value, int) else value} for key, value in flat.items()]
