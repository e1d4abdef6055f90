"""What a training run will cost, roughly, before it is started (`--dry-run`)."""

from __future__ import annotations

from typing import Any

from configs.schema import TrainingSection
from training.packing import PACK_TOKENS, schedule

CPU_TOKENS_PER_S = 250.0
"""A 135M model in fp32 on two cores; the time of another model is in proportion to its parameters."""
REFERENCE_PARAMETERS = 135e6
_START_S = 15.0
"""Imports and loading."""
_RUNTIME_MB = 600.0
"""Python, torch and peft."""
_ACTIVATION_MB_PER_TOKEN = 1.9
"""Measured on the 135M model, for the largest packed sequence."""


def estimate(rows: int, tokens: int, config: TrainingSection, *, parameters: float = 135e6) -> dict[str, Any]:
    """Rows, steps, minutes and memory of a run on a CPU.

    Args:
        rows: training rows of the snapshot.
        tokens: their tokens, prompt and completion, in one epoch.
        config: the training section.
        parameters: of the base model.

    Returns:
        rows, tokens (over all epochs), steps, minutes, memory_mb; all rough but the first three.
    """
    scale = parameters / REFERENCE_PARAMETERS
    steps = len(schedule(rows, epochs=config.epochs, rows_per_step=config.rows_per_step, seed=0)) if rows else 0
    seen = round(tokens * config.epochs)
    bytes_per_weight = {"none": 4.0, "int8": 1.0, "nf4": 0.6}[config.quantization]
    sequence = max(min(float(PACK_TOKENS["cpu"]), tokens), tokens / max(1, rows))
    return {
        "rows": rows,
        "tokens": seen,
        "steps": steps,
        "minutes": round((seen * scale / CPU_TOKENS_PER_S + (_START_S if rows else 0)) / 60, 1),
        "memory_mb": round(
            _RUNTIME_MB + parameters * bytes_per_weight / 1e6 + sequence * _ACTIVATION_MB_PER_TOKEN * scale**0.5
        ),
    }
