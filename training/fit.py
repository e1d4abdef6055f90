"""Whether a run fits into a device's memory, and which settings would make it fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import TrainingSection
from models.packing import TokenRow
from training.data import Example, Pair, Rated
from training.early_stopping import held_out_rows
from training.memory import BaseShape, available_mb, base_shape, memory, used_mb
from training.packing import schedule


def steps_of(rows: Sequence[Example], config: TrainingSection) -> list[list[Example]]:
    """The rows of every optimiser step of a run."""
    if not rows:
        return []
    steps = schedule(len(rows), epochs=config.epochs, rows_per_step=config.rows_per_step, seed=config.seed)
    return [[rows[i] for i in step] for step in steps]


def _capped(one: Example, most: int) -> Example:
    """An example as a smaller `max_row_tokens` would leave it, near enough: its prompts shortened at the front."""
    if isinstance(one, Pair):
        return replace(one, chosen=_capped_row(one.chosen, most), rejected=_capped_row(one.rejected, most))
    if isinstance(one, Rated):
        return replace(one, row=_capped_row(one.row, most), other=_capped_row(one.other, most))
    return _capped_row(one, most)


def _capped_row(row: TokenRow, most: int) -> TokenRow:
    room = max(1, most - len(row.completion))
    return row if len(row) <= most else replace(row, prompt=row.prompt[-room:])


def _needed_mb(rows: Sequence[Example], shape: BaseShape, config: TrainingSection, device: str) -> float:
    capped = [_capped(row, config.max_row_tokens) for row in rows]
    return memory(steps_of(capped, config), shape, config, device)[0].needed


def _changes(config: TrainingSection) -> list[tuple[str, dict[str, Any]]]:
    """Settings to try: each one alone, all together, and then with shorter rows too."""
    distributed = config.distributed
    alone: list[tuple[str, dict[str, Any]]] = []
    if config.rows_per_step > 1:
        fewer = max(1, config.rows_per_step // 4)
        alone.append((f"rows_per_step: {fewer}", {"rows_per_step": fewer}))
    if not config.gradient_checkpointing:
        alone.append(("gradient_checkpointing: true", {"gradient_checkpointing": True}))
    if config.quantization != "nf4" and distributed.strategy != "fsdp":
        alone.append(("quantization: nf4 (QLoRA)", {"quantization": "nf4"}))
    texts, together = [text for text, _ in alone], {key: value for _, change in alone for key, value in change.items()}
    sharded = []
    if distributed.together > 1 and distributed.strategy != "fsdp" and config.quantization == "none":
        change = {"distributed": distributed.model_copy(update={"strategy": "fsdp"})}
        sharded = [("distributed.strategy: fsdp", change)]
    shorter = max(1, config.max_row_tokens // 4)
    both = [(" and ".join(texts), together)] if len(alone) > 1 else []
    last = (" and ".join([*texts, f"max_row_tokens: {shorter}"]), {**together, "max_row_tokens": shorter})
    return [*alone, *sharded, *both, last]


def ways_out(
    rows: Sequence[Example], shape: BaseShape, config: TrainingSection, device: str, limit_mb: float
) -> list[str]:
    """Settings under which the run would fit, by the formula, the least change first, each with its memory."""
    found = []
    for text, change in _changes(config):
        needed = _needed_mb(rows, shape, config.model_copy(update=change), device)
        if needed <= limit_mb:
            found.append(f"{text} (about {needed:,.0f} MB)")
    return found


def trained(rows: Sequence[Example], config: TrainingSection) -> list[Example]:
    """The rows of a run that are not held out for early stopping."""
    apart = set(held_out_rows(rows, config, seed=config.seed)) if rows else set()
    return [row for index, row in enumerate(rows) if index not in apart]


def check_fits(rows: Sequence[Example], base_path: Path, config: TrainingSection) -> None:
    """Refuse a run that cannot fit, by the formula alone: no weight is read.

    Args:
        rows: tokenised.
        base_path: folder of the base model.
        config: the training section.

    Raises:
        TrainingError: as `refuse`.
    """
    from models.loading import pick_device

    device, shape, training = pick_device(config.device), base_shape(base_path), trained(rows, config)
    needed = memory(steps_of(training, config), shape, config, device)[0].needed
    shared = (
        config.distributed.processes if device == "cpu" else 1
    )  # processes without a GPU share the machine's memory
    refuse(training, needed, shape, config, device, available_mb(device) / shared + used_mb(device))


def refuse(
    rows: Sequence[Example], needed_mb: float, shape: BaseShape, config: TrainingSection, device: str, limit_mb: float
) -> None:
    """Raise if a run needs more memory than there is.

    Raises:
        TrainingError: names what would fit.
    """
    if needed_mb <= limit_mb:
        return
    ways = ways_out(rows, shape, config, device, limit_mb)
    raise TrainingError(
        "this training does not fit into the device's memory",
        where=f"training.device: {device}",
        expected=f"a peak of at most {limit_mb:,.0f} MB",
        found=f"about {needed_mb:,.0f} MB",
        fix=f"in `training`, set {'; or '.join(ways[:3])}" if ways else "take a smaller base or a larger device",
    )
