"""Early stopping: rows that never train are asked every few steps, and the weights that answered them best are kept.

Off by default: the gate judges an adapter by what it does, not by its loss. It helps where many epochs are run over few
rows. (Prechelt, "Early stopping - but when?", 1998: stop after `patience` looks without a gain.)
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import EarlyStopping, TrainingSection
from models.packing import TokenRow, pack, token_nll
from training.checkpoint import BEST, Progress
from training.data import Example
from training.faults import check_weights, finite, naming_memory, writing
from training.packing import pack_tokens
from training.ranks import ALONE, Ranks


def held_out_rows(rows: Sequence[Example], config: TrainingSection, *, seed: int) -> list[int]:
    """Indices of the rows that do not train: a share of the corrections, nothing else; empty where it is off.

    Raises:
        TrainingError: too few rows to hold one out and train on another.
    """
    setting = config.early_stopping
    if setting is None:
        return []
    teaching = [index for index, row in enumerate(rows) if isinstance(row, TokenRow) and not row.replay]
    count = max(1, round(setting.share * len(teaching)))
    if count >= len(teaching):
        raise TrainingError(
            "too few rows to hold some out",
            where="training.early_stopping",
            expected="at least two rows that teach",
            found=len(teaching),
            fix="switch early_stopping off for so few rows",
        )
    random.Random(f"held out/{seed}").shuffle(teaching)
    return sorted(teaching[:count])


def is_over(losses: Sequence[float], setting: EarlyStopping) -> bool:
    """True if the last `patience` looks brought no gain of `min_gain` over the best before them."""
    if len(losses) <= setting.patience:
        return False
    return min(losses[-setting.patience :]) >= min(losses[: -setting.patience]) - setting.min_gain


def held_out_loss(model: Any, rows: Sequence[TokenRow], ranks: Ranks = ALONE) -> float:
    """Mean negative log-likelihood of the completions of `rows`, nats per supervised token, without dropout.

    Each rank asks its share; all get the same mean, so they stop after the same look.
    """
    import torch

    model.eval()
    total = 0.0
    with torch.no_grad():
        limit = pack_tokens(model.device.type)
        for group, counts in ranks.groups(ranks.deal([rows])[0], limit):
            total += counts * float(token_nll(model, pack(group, model.device)).sum())
    model.train()
    return ranks.sum([total])[0] / sum(len(row.completion) for row in rows)


@dataclass(frozen=True)
class Watch:
    """Looks at the rows held out while a run goes on.

    Attributes:
        setting: when to look and when to stop.
        rows: the rows held out.
        work_dir: where the best weights are kept, beside the checkpoint.
        ranks: who looks together; the first keeps the weights.
    """

    setting: EarlyStopping
    rows: tuple[TokenRow, ...]
    work_dir: Path
    ranks: Ranks = ALONE

    def look(self, model: Any, parameters: Sequence[Any], done: Progress, *, last: bool = False) -> bool:
        """After a step: evaluate if it is time, keep the weights if they are the best so far; True to stop.

        The last step is always looked at: what was learnt since the look before it would count for nothing.

        Raises:
            TrainingError: a loss that is not finite, which would be no best ever after; no memory or no disk left.
        """
        if done.step % self.setting.every_steps and not last:
            return False
        with naming_memory(f"looking at the rows held out, step {done.step}"):
            loss = held_out_loss(model, self.rows, self.ranks)
        done.held_out.append(finite(loss, "loss of the rows held out", done.step - 1))
        if self.ranks.main and done.held_out[-1] == min(done.held_out):
            self._keep(parameters, done.step)
        return is_over(done.held_out, self.setting)

    def is_over(self, done: Progress) -> bool:
        """True if a run that is taken up again had already stopped."""
        return is_over(done.held_out, self.setting)

    def _keep(self, parameters: Sequence[Any], step: int) -> None:
        from safetensors.torch import save_file

        check_weights(parameters, step)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        target = self.work_dir / BEST
        temporary = target.with_name(f".{BEST}.{os.getpid()}.tmp")
        tensors = {str(i): p.detach().cpu().contiguous() for i, p in enumerate(parameters)}
        with writing(target, temporary):
            save_file(tensors, temporary)
            with temporary.open("rb") as handle:  # the checkpoint that follows must not outlive it
                os.fsync(handle.fileno())
            os.replace(temporary, target)

    def restore(self, parameters: Sequence[Any], done: Progress) -> None:
        """Put the best weights back at the end of a run, where they are published; without a look there are none."""
        import torch
        from safetensors.torch import load_file

        if not done.held_out or not self.ranks.main:
            return
        saved = load_file(self.work_dir / BEST)
        with torch.no_grad():
            for index, parameter in enumerate(parameters):
                parameter.copy_(saved[str(index)])


def looks(losses: Sequence[float], config: TrainingSection, steps: int) -> list[tuple[int, float]]:
    """(step, loss) of every look of a run that ended after `steps` steps."""
    every = config.early_stopping.every_steps if config.early_stopping is not None else 0
    return [(min((number + 1) * every, steps), loss) for number, loss in enumerate(losses)]


def best_look(losses: Sequence[float], config: TrainingSection, steps: int) -> dict[str, float]:
    """{"held_out_loss", "best_step"} of the weights that were kept: of equals the last; empty without a look."""
    if not losses:
        return {}
    step, loss = min(reversed(looks(losses, config, steps)), key=lambda look: look[1])
    return {"held_out_loss": loss, "best_step": float(step)}


def watched(done: Progress, config: TrainingSection, *, last: bool) -> dict[str, float]:
    """{"held_out": loss} after a step with a look, else nothing."""
    setting = config.early_stopping
    looked = setting is not None and done.held_out and (last or done.step % setting.every_steps == 0)
    return {"held_out": round(done.held_out[-1], 5)} if looked else {}


def watch_for(
    rows: Sequence[Example], config: TrainingSection, *, seed: int, work_dir: Path, ranks: Ranks = ALONE
) -> Watch | None:
    """What watches a run, or None where early stopping is off."""
    if config.early_stopping is None:
        return None
    held = held_out_rows(rows, config, seed=seed)
    apart = [rows[i] for i in held]
    return Watch(config.early_stopping, tuple(row for row in apart if isinstance(row, TokenRow)), work_dir, ranks)
