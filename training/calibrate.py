"""A few optimiser steps on the real base, timed and weighed: `python -m training.calibrate --job JOB.json`.

The job names lengths, never texts: a step takes as long whatever the tokens are. The loop is the trainer's own.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.schema import TrainingSection
from models.jobs import Emit, Event, JobStopped, run_job, serve_job
from models.packing import TokenRow
from training.data import Example, Pair, Rated
from training.memory import peak_mb

SEED = 0
Length = tuple[str, int, int, int]
"""What it teaches by (`row`, `replay`, `pair`, `up`, `down`), tokens of the prompt, of the completion, and of the other
answer: the rejected one, or the one of KTO's point of reference."""


@dataclass(frozen=True)
class Calibration:
    """What the steps took.

    Attributes:
        start_s: from the process's start until the first step could begin: imports, loading, wrapping.
        timed: `sample`, or `heaviest` if the budget allowed no step of it.
        first: index of its first timed step.
        step_s: seconds of each timed step, in order.
        peak_mb: most memory the process held, loading included.
    """

    start_s: float
    timed: str
    first: int
    step_s: tuple[float, ...]
    peak_mb: float


def lengths(examples: Sequence[Example]) -> list[Length]:
    """Examples without their tokens."""
    return [_length(one) for one in examples]


def _length(one: Example) -> Length:
    if isinstance(one, Pair):
        return "pair", len(one.chosen.prompt), len(one.chosen.completion), len(one.rejected.completion)
    if isinstance(one, Rated):
        side = "up" if one.label > 0 else "down"
        return side, len(one.row.prompt), len(one.row.completion), len(one.other.completion)
    return "replay" if one.replay else "row", len(one.prompt), len(one.completion), 0


def one_pass(config: TrainingSection) -> TrainingSection:
    """The section with which each row given to a calibration is seen once."""
    small = {"epochs": 1.0, "learning_rate": 1e-6, "checkpoint_steps": 1_000_000, "early_stopping": None}
    small |= {"checkpoint_minutes": 1e6}
    return TrainingSection.model_validate({**config.model_dump(), **small})


def calibrate(
    base_path: Path,
    heaviest: Sequence[Example],
    sample: Sequence[Example],
    config: TrainingSection,
    *,
    threads: int = 0,
    budget_s: float = 45.0,
    on_event: Emit = lambda _: None,
) -> Calibration:
    """Train the steps of `sample`, then `heaviest` as one step, in a process of its own.

    Args:
        base_path: folder of the base model.
        heaviest: rows of the step with the largest packed sequence; shows the peak.
        sample: rows of the timed steps.
        config: the training section of the run to come.
        threads: CPU threads; 0 leaves torch's choice.
        budget_s: no more step of `sample` is begun after so many seconds.
        on_event: called with the child's events.

    Raises:
        TidemillError: what the child reported; WorkerLostError if it was killed, for example for memory.
    """
    job = {
        "base_path": str(base_path),
        "heaviest": lengths(heaviest),
        "sample": lengths(sample),
        "config": one_pass(config).model_dump(mode="json"),
        "threads": threads,
        "budget_s": budget_s,
    }
    with tempfile.TemporaryDirectory(prefix="tidemill-calibrate-") as folder:
        final = run_job("training.calibrate", {**job, "work_dir": folder}, Path(folder), on_event)
    return Calibration(
        start_s=float(final["start_s"]),
        timed=str(final["timed"]),
        first=int(final["first"]),
        step_s=tuple(final["step_s"]),
        peak_mb=float(final["peak_mb"]),
    )


def _examples(kept: Sequence[Length], vocabulary: int) -> list[Example]:
    """Examples of these lengths; what the reference gives to their answers changes no time and is put at 0."""
    source = random.Random(SEED)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(source.randrange(vocabulary) for _ in range(count))

    found: list[Example] = []
    for kind, prompt, completion, other in kept:
        row = TokenRow(tokens(prompt), tokens(completion), replay=kind == "replay")
        if kind == "pair":
            found.append(Pair(row, replace(row, completion=tokens(other)), (0.0, 0.0)))
        elif kind in ("up", "down"):
            found.append(Rated(row, replace(row, completion=tokens(other)), 1 if kind == "up" else -1, (0.0, 0.0)))
        else:
            found.append(row)
    return found


class _Clock:
    """Notes when each step ends; says stop when the budget is used up."""

    def __init__(self, budget_s: float, asked: Callable[[], bool]) -> None:
        self.ends = [time.monotonic()]
        self._deadline, self._asked = self.ends[0] + budget_s, asked

    def __call__(self, event: Event) -> None:
        self.ends.append(time.monotonic())

    def over(self) -> bool:
        return self._asked() or time.monotonic() > self._deadline

    def timed(self, *, whole: bool) -> tuple[int, list[float]]:
        """(index of the first step that counts, seconds of those that count).

        Where there are others, the first does not count, for it warms up, nor the last of a whole run, for it saves a
        checkpoint.
        """
        seconds = [b - a for a, b in itertools.pairwise(self.ends)]
        counting = seconds[1:-1] if whole else seconds[1:]
        return (1, counting) if counting else (0, seconds[:1])


def _calibrate(job: dict[str, Any], emit: Emit, stop: threading.Event) -> Event:
    import psutil

    from models.loading import load_base, set_threads
    from training.lora import add_lora
    from training.sft import train_lora

    config = TrainingSection.model_validate(job["config"])
    set_threads(int(job["threads"]))
    emit({"event": "stage", "text": "loading the base model"})
    model, _ = load_base(Path(job["base_path"]), device=config.device, quantization=config.quantization)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    model = add_lora(model, config, seed=SEED)
    start_s = time.time() - psutil.Process().create_time()

    def train(name: str, budget_s: float) -> tuple[int, list[float]]:
        clock, whole = _Clock(budget_s, stop.is_set), True
        try:
            train_lora(
                model,
                _examples(job[name], vocabulary),
                config,
                seed=SEED,
                work_dir=Path(job["work_dir"]) / name,
                fingerprint=name,
                on_step=clock,
                stopped=clock.over,
            )
        except JobStopped:  # the budget, or our parent
            if stop.is_set():
                raise
            whole = False
        return clock.timed(whole=whole)

    emit({"event": "stage", "text": "timing a few steps"})
    (first, step_s), timed = train("sample", float(job["budget_s"])), "sample"
    # Last, on a heap that steps of other lengths have left gaps in, as in a run.
    heaviest = train("heaviest", float("inf"))
    if not step_s:
        (first, step_s), timed = heaviest, "heaviest"
    return {
        "start_s": start_s,
        "timed": timed,
        "first": first,
        "step_s": step_s,
        "peak_mb": peak_mb(model.device.type),
    }


if __name__ == "__main__":
    raise SystemExit(serve_job(_calibrate))
