"""What can go wrong in a run, each told as one clear error: a step that diverges, no memory left, no disk left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.errors import TidemillError, TrainingError
from models.adapters import MAX_ABS

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")
_NAMED = 16
"""Most rows an error names."""


def finite(value: float, what: str, step: int) -> float:
    """The value itself, if it is a number.

    Args:
        value: to check.
        what: what it is.
        step: counted from 0.

    Raises:
        TrainingError: NaN or infinite.
    """
    if not math.isfinite(value):
        raise TrainingError(
            f"the {what} is no longer a finite number",
            where=f"step {step + 1}",
            expected="a finite number",
            found=value,
            fix="lower training.learning_rate, or look at the rows of this snapshot",
        )
    return value


def _is_no_memory(error: BaseException | None) -> bool:
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in _NO_MEMORY)


@contextmanager
def naming_memory(where: str) -> Iterator[None]:
    """Say in one clear error that the device's memory is used up; other errors pass.

    Args:
        where: what is being done.

    Raises:
        TrainingError: so it is.
    """
    try:
        yield
    # torch.OutOfMemoryError is a RuntimeError; so is the CPU allocator's. Loading tells either as an error of ours.
    except (MemoryError, RuntimeError, TidemillError) as error:
        cause = error.__cause__ if isinstance(error, TidemillError) else error
        if isinstance(error, TrainingError) or cause is None or not _is_no_memory(cause):
            raise
        raise TrainingError(
            "the device's memory is used up",
            where=where,
            found=str(cause).splitlines()[0] if str(cause) else type(cause).__name__,
            fix="`tidemill train plan` says which settings fit; the run goes on from its last checkpoint",
        ) from error


@contextmanager
def naming_batch(step: int, names: Sequence[str]) -> Iterator[None]:
    """Give an error of one optimiser step the rows it was about.

    Args:
        step: counted from 0.
        names: digests of the step's rows; texts must not stand in errors.

    Raises:
        TrainingError: the error with its batch, or that the device's memory is used up.
    """
    shown = ", ".join(name[:12] for name in names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")
    batch = f"step {step + 1}" + (f", rows {shown}" if shown else "")
    try:
        with naming_memory(batch):
            yield
    except TrainingError as error:
        raise TrainingError(
            error.message, where=batch, expected=error.expected, found=error.found, fix=error.fix
        ) from error


def check_weights(parameters: Sequence[Any], step: int) -> None:
    """Refuse weights that no adapter may have, before they overwrite a good checkpoint.

    Args:
        parameters: the adapter's.
        step: steps done.

    Raises:
        TrainingError: a weight is not finite or larger than `models.adapters.MAX_ABS`.
    """
    import torch

    with torch.no_grad():
        # One number for all, so that a GPU is asked once; NaN stays NaN in a maximum.
        largest = float(torch.stack([parameter.detach().abs().max() for parameter in parameters]).max())
    if not largest <= MAX_ABS:
        raise TrainingError(
            "a weight of the adapter is no longer a sane number",
            where=f"step {step}",
            expected=f"finite, at most {MAX_ABS:g}",
            found=largest,
            fix="lower training.learning_rate, or look at the rows of this snapshot; the last good checkpoint is kept",
        )


@contextmanager
def writing(target: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn a failed write into one clear error, and leave no part of it behind.

    Args:
        target: what is being written.
        temporary: the file it is written to first; removed if the write fails.

    Raises:
        TrainingError: disk full, a limit on files, or a folder that cannot be written.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise TrainingError(
            "this cannot be written",
            where=target,
            expected="room on the disk and a folder that can be written",
            found=error,
            fix="free space and run it again: it goes on from the last checkpoint",
        ) from error
