"""Fine-tuning of a LoRA adapter: the loop, whatever its rows teach by (`training.objectives`).

A step packs its rows without padding, asks for logits only where a completion is supervised, and takes the mean over
the step's supervised tokens. Same rows, settings, seed and thread count give the same adapter, interrupted or not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import TrainingSection
from models.jobs import JobStopped
from training import checkpoint
from training.checkpoint import Progress
from training.data import Example
from training.early_stopping import held_out_rows, watch_for, watched
from training.faults import finite, naming_batch
from training.objectives import Sides, backward, sides_of
from training.packing import schedule
from training.ranks import ALONE, Ranks

OnStep = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class TrainResult:
    """What a finished run reports.

    `steps` done; `losses`: one per step, by the weights of its objectives (nats per
    supervised token where all rows are corrections); `tokens` without padding; `held_out`: the loss of
    the rows held out at each look, empty where early stopping is off.
    """

    steps: int
    losses: tuple[float, ...]
    tokens: int
    seconds: float
    resumed_at: int
    held_out: tuple[float, ...] = ()


def learning_rate(step: int, steps: int, config: TrainingSection) -> float:
    """Linear warm-up over `warmup_share` of the steps, then a decay, linear or cosine, that ends just above zero."""
    warmup = max(1, round(steps * config.warmup_share))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    left = (steps - step) / max(1, steps - warmup + 1)
    return config.learning_rate * (left if config.decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


def _step(
    model: Any, examples: Sequence[Example], parameters: list[Any], config: TrainingSection, sides: Sides, step: int,
    ranks: Ranks,
) -> float:  # fmt: skip
    """Forward and backward of one optimiser step; gradients are left clipped in `parameters`. Returns the loss."""
    import torch

    total = ranks.sum([backward(model, examples, config, sides, ranks)])[0]
    ranks.sum_gradients(parameters)
    finite(total, "loss", step)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
    finite(float(norm), "gradient", step)
    return total


def train_lora(
    model: Any,
    rows: Sequence[Example],
    config: TrainingSection,
    *,
    seed: int,
    work_dir: Path,
    fingerprint: str,
    on_step: OnStep,
    names: Sequence[str] = (),
    stopped: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train the LoRA weights of `model` in place, resuming from `work_dir` if it holds this run's checkpoint.

    Args:
        model: a PeftModel of `training.lora.add_lora`.
        rows: tokenised training rows, those of preferences and thumbs `training.reference.with_reference`.
        config: the training section.
        seed: decides the order of rows and dropout.
        work_dir: where the checkpoint is kept.
        fingerprint: digest of everything that decides the outcome; another one starts anew.
        on_step: called after each step with step, steps, loss, lr, tok_s (tokens per second), eta_s, and held_out (a
            loss) after a look at rows held out.
        names: what an error calls each row: its digest, never a text.
        stopped: asked after each step, before anything of it is written; True saves a checkpoint and raises JobStopped.
        clock: seconds that never go back; when checkpoints are written, and the speed, go by it.
        ranks: the processes that run this loop together. All go through the same steps; the first one writes.

    Raises:
        TrainingError: no rows; a loss, gradient or weight that is not finite (names the step's rows), or the loss of
            the rows held out; no memory or no disk left. The last good checkpoint stays.
        JobStopped: as asked; the checkpoint is on disk.
    """
    import torch

    if not rows:
        raise TrainingError("nothing to train on", expected="at least one row of the split `train`", found="none")
    watch = watch_for(rows, config, seed=seed, work_dir=work_dir, ranks=ranks)
    apart = set(held_out_rows(rows, config, seed=seed))
    kept = [i for i in range(len(rows)) if i not in apart]
    rows, names = [rows[i] for i in kept], [names[i] for i in kept] if names else ()
    steps = schedule(len(rows), epochs=config.epochs, rows_per_step=config.rows_per_step, seed=seed)
    sides = sides_of(rows)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    done = checkpoint.load_together(work_dir, fingerprint, parameters, optimizer, ranks) or Progress(0, [], 0, 0.0)
    resumed_at, tokens_before, seconds_before = done.step, done.tokens, done.seconds
    model.train()
    interval = checkpoint.Interval(config, clock)
    begun = clock()
    ended = watch is not None and watch.is_over(done)
    for step in range(len(steps) if ended else done.step, len(steps)):
        picked = [rows[i] for i in steps[step]]
        # Dropout is the same after a resume, and of its own on each rank.
        torch.manual_seed(seed * 1_000_003 + step + ranks.rank * 999_983_000_011)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(steps), config)
        with naming_batch(step, [names[i] for i in steps[step]] if names else ()):
            done.losses.append(_step(model, picked, parameters, config, sides, step, ranks))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done.step, done.tokens = step + 1, done.tokens + sum(len(row) for row in picked)
        elapsed = max(1e-9, clock() - begun)
        done.seconds = seconds_before + elapsed
        asked = ranks.any(stopped())  # before anything is written
        last = done.step == len(steps)
        last = (watch is not None and watch.look(model, parameters, done, last=last)) or last
        must_stop = asked and not last
        if ranks.main and (must_stop or last or interval.due(done.step)):
            checkpoint.save(work_dir, fingerprint, done, parameters, optimizer)
            interval.written()
        if must_stop:
            ranks.wait()  # until it is written: the launcher ends all as soon as one has gone
            raise JobStopped
        on_step(
            {
                "step": done.step,
                "steps": len(steps),
                "loss": round(done.losses[-1], 5),
                "lr": learning_rate(step, len(steps), config),
                "tok_s": round((done.tokens - tokens_before) / elapsed, 1),
                "eta_s": round(elapsed / (done.step - resumed_at) * (len(steps) - done.step), 1),
                **watched(done, config, last=last),
            }
        )
        if last:
            break
    if watch is not None:
        watch.restore(parameters, done)
    model.eval()
    return TrainResult(done.step, tuple(done.losses), done.tokens, done.seconds, resumed_at, tuple(done.held_out))
