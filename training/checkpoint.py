"""A training run's state in one safetensors file, replaced atomically: a kill at any moment leaves a whole one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.schema import TrainingSection
from training.faults import check_weights, writing
from training.ranks import Ranks

FILE, BEST = "checkpoint.safetensors", "best.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        losses: loss of every step so far, nats per supervised token.
        tokens: non-padding tokens seen.
        seconds: training time so far, over all attempts.
        held_out: loss of the rows held out at every look so far (`training.early_stopping`).
    """

    step: int
    losses: list[float]
    tokens: int
    seconds: float
    held_out: list[float] = field(default_factory=list)


class Interval:
    """Says when a checkpoint is due: at every `checkpoint_steps` steps, and `checkpoint_minutes` after the last one.

    Args:
        config: the training section.
        clock: seconds that never go back.
    """

    def __init__(self, config: TrainingSection, clock: Callable[[], float]) -> None:
        self._steps, self._seconds, self._clock = config.checkpoint_steps, 60 * config.checkpoint_minutes, clock
        self._last = clock()

    def due(self, step: int) -> bool:
        """True after `step` steps if one must be written now."""
        return step % self._steps == 0 or self._clock() - self._last >= self._seconds

    def written(self) -> None:
        """Count from now."""
        self._last = self._clock()


def save(folder: Path, fingerprint: str, progress: Progress, parameters: list[Any], optimizer: Any) -> None:
    """Write parameters, AdamW moments and progress; fsync and rename, so a reader sees the old file or the new one.

    Raises:
        TrainingError: a weight is not finite or far too large, or the disk is full; the old file stays.
    """
    from safetensors.torch import save_file

    check_weights(parameters, progress.step)
    tensors: dict[str, Any] = {}
    for index, parameter in enumerate(parameters):
        tensors[f"p.{index}"] = parameter.detach().cpu().contiguous()
        for name in _MOMENTS:
            tensors[f"{name}.{index}"] = optimizer.state[parameter][name].detach().cpu().contiguous()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    facts = {"fingerprint": fingerprint, **vars(progress)}
    with writing(folder / FILE, temporary):
        save_file(tensors, temporary, metadata={"tidemill": json.dumps(facts)})
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, folder / FILE)


def load(folder: Path, fingerprint: str, parameters: list[Any], optimizer: Any) -> Progress | None:
    """Put a saved state back into `parameters` and `optimizer`.

    Returns:
        The progress, or None if there is no checkpoint or it is another run's (other rows, settings, seed or code):
        training then starts anew.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    for left in folder.glob(".*.safetensors.*.tmp"):  # of a run that was killed while it wrote
        left.unlink(missing_ok=True)
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as saved:
            facts = json.loads((saved.metadata() or {}).get("tidemill", "{}"))
            if facts.pop("fingerprint", None) != fingerprint:
                return None
            with torch.no_grad():
                for index, parameter in enumerate(parameters):
                    parameter.copy_(saved.get_tensor(f"p.{index}"))
                    moments = {n: saved.get_tensor(f"{n}.{index}").to(parameter.device) for n in _MOMENTS}
                    step = torch.tensor(float(facts["step"]), device=parameter.device)
                    optimizer.state[parameter] = {"step": step, **moments}
    except SafetensorError:
        return None  # damaged on disk (never half-written): the run starts anew
    return Progress(**facts)


def load_together(
    folder: Path, fingerprint: str, parameters: list[Any], optimizer: Any, ranks: Ranks
) -> Progress | None:
    """`load` by the first rank, which gives what it found to the others: all go on from the same state, or none.

    The file says nothing of ranks: what four wrote, one may go on with.
    """
    import torch

    done = ranks.from_main(lambda: load(folder, fingerprint, parameters, optimizer))
    if done is None or ranks.wire is None:
        return done
    for parameter in parameters:
        state = optimizer.state[parameter]
        if not ranks.main:
            state["step"] = torch.tensor(float(done.step), device=parameter.device)
            state.update({name: torch.zeros_like(parameter, requires_grad=False) for name in _MOMENTS})
        ranks.copy([parameter.detach(), *(state[name] for name in _MOMENTS)])
    return done


def remove(folder: Path) -> None:
    """Forget the checkpoint once the adapter is published."""
    for name in (FILE, BEST):
        (folder / name).unlink(missing_ok=True)
