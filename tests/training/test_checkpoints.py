"""When checkpoints are written, and that it decides nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import TrainingError
from configs.schema import TrainingSection
from models.packing import TokenRow
from training import checkpoint
from training.sft import TrainResult, train_lora

ROWS = [TokenRow((5 + n, 6, 7), (20 + n, 21, 22)) for n in range(12)]


class Killed(Exception):
    """Stands for a SIGKILL: nothing is saved on the way out."""


def clock_of(minutes_a_call: float) -> Callable[[], float]:
    ticks = itertools.count()
    return lambda: next(ticks) * minutes_a_call * 60


def fresh(tiny_base: Path) -> Any:
    from models.loading import load_base
    from training.lora import add_lora

    return add_lora(load_base(tiny_base)[0], TrainingSection(rank=4, alpha=8.0), seed=1)


def run(
    model: Any, work: Path, clock: Callable[[], float], *, die_at: int = 0, **section: Any
) -> tuple[TrainResult, dict[str, Any]]:
    """Train; returns the result and the adapter's weights."""

    def on_step(event: dict[str, Any]) -> None:
        if event["step"] == die_at:
            raise Killed

    settings = {"rank": 4, "alpha": 8.0, "epochs": 3, "rows_per_step": 3, "learning_rate": 1e-2, "dropout": 0.1}
    config = TrainingSection(**{**settings, **section})
    done = train_lora(model, ROWS, config, seed=3, work_dir=work, fingerprint="f", on_step=on_step, clock=clock)
    return done, {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("steps", "minutes", "a_call", "due"), [
    (4, 10.0, 0.0, [4, 8, 12]),
    (1000, 10.0, 4.0, [3, 6, 9, 12]),
    (4, 10.0, 4.0, [3, 4, 7, 8, 11, 12]),
])  # fmt: skip
def test_a_checkpoint_is_due_after_steps_or_minutes_whichever_comes_first(
    steps: int, minutes: float, a_call: float, due: list[int]
) -> None:
    now = 0.0
    interval = checkpoint.Interval(
        TrainingSection(checkpoint_steps=steps, checkpoint_minutes=minutes), clock=lambda: now
    )
    found = []
    for step in range(1, 13):
        now += a_call * 60
        if interval.due(step):
            found.append(step)
            interval.written()
    assert found == due


def test_whenever_checkpoints_were_written_a_killed_run_ends_with_the_same_adapter(
    tiny_base: Path, tmp_path: Path
) -> None:
    whole, expected = run(fresh(tiny_base), tmp_path / "whole", clock_of(0))
    assert whole.steps == 12
    for name, steps, minutes_a_call, resumed in (
        ("steps", 4, 0.0, 4),
        ("minutes", 1000, 3.0, 6),
        ("never", 1000, 0, 0),
    ):
        work = tmp_path / name
        with pytest.raises(Killed):
            run(fresh(tiny_base), work, clock_of(minutes_a_call), die_at=7, checkpoint_steps=steps)
        done, weights = run(fresh(tiny_base), work, clock_of(0.1), checkpoint_steps=5)
        assert done.resumed_at == resumed, name
        assert done.losses == whole.losses
        assert weights.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in weights.items())


def test_memory_that_is_used_up_in_a_step_names_its_rows_and_the_checkpoint_stays(
    tiny_base: Path, tmp_path: Path
) -> None:
    """The allocator really refuses: in the third step the model asks for a petabyte."""
    model, calls = fresh(tiny_base), itertools.count(1)
    model.register_forward_pre_hook(lambda *_: torch.empty(2**50) and None if next(calls) == 3 else None)
    config = TrainingSection(rank=4, alpha=8.0, rows_per_step=3, checkpoint_steps=1)
    names = [f"{n:064x}"[::-1] for n in range(len(ROWS))]
    with pytest.raises(TrainingError, match="memory is used up") as caught:
        train_lora(
            model, ROWS, config, seed=3, work_dir=tmp_path, fingerprint="f", on_step=lambda event: None, names=names
        )
    assert "step 3, rows " in str(caught.value.where)
    assert sum(name[:12] in str(caught.value.where) for name in names) == 3
    assert "tidemill train plan" in str(caught.value.fix)
    kept = checkpoint.load(tmp_path, "f", *_loaded(tiny_base))
    assert kept is not None
    assert kept.step == 2


def _loaded(tiny_base: Path) -> tuple[list[Any], Any]:
    parameters = [p for p in fresh(tiny_base).parameters() if p.requires_grad]
    return parameters, torch.optim.AdamW(parameters)
