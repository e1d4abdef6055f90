from pathlib import Path
from typing import Any

import pytest
from training_samples import make_job, poison

from configs.errors import TrainingError
from configs.schema import EarlyStopping, TrainingSection
from data_contracts.records import AdapterRef
from data_contracts.snapshots import read_rows
from models.packing import TokenRow
from training.checkpoint import BEST, FILE
from training.data import tokenise
from training.early_stopping import best_look, held_out_loss, held_out_rows, is_over
from training.launch import run_training
from training.plan import plan_rows
from training.sft import TrainResult, learning_rate, train_lora

STOPPING = {"share": 0.25, "every_steps": 2, "patience": 2}


def test_the_cosine_falls_from_the_full_rate_to_just_above_zero():
    config = TrainingSection(learning_rate=1e-3, warmup_share=0.1, decay="cosine")
    rates = [learning_rate(step, 50, config) for step in range(50)]
    assert max(rates) == pytest.approx(1e-3, rel=0.01)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 1e-5
    assert rates[27] == pytest.approx(learning_rate(27, 50, TrainingSection(learning_rate=1e-3)), rel=0.1)


@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ([], False),
        ([3, 2], False),
        ([3, 2, 1.9], False),
        ([2, 2.1, 2.2], True),
        ([2, 2.1, 1.9], False),
        ([2, 2, 2], True),
    ],
)
def test_a_run_is_over_after_as_many_looks_without_a_gain_as_it_has_patience(losses: list[float], over: bool):
    assert is_over(losses, EarlyStopping(patience=2, min_gain=0.0)) is over


def test_a_gain_that_is_too_small_counts_for_nothing():
    assert is_over([2.0, 1.99, 1.98], EarlyStopping(patience=2, min_gain=0.1))


def test_only_rows_that_teach_are_held_out():
    rows = [TokenRow((1,), (2,), replay=n % 2 == 0) for n in range(20)]
    config = TrainingSection(early_stopping=EarlyStopping(share=0.3))
    held = held_out_rows(rows, config, seed=1)
    assert len(held) == 3
    assert all(not rows[i].replay for i in held)
    assert held == held_out_rows(rows, config, seed=1)
    assert held_out_rows(rows, TrainingSection(), seed=1) == []
    with pytest.raises(TrainingError, match="too few"):
        held_out_rows(rows[:2], config, seed=1)


def test_a_run_that_learns_by_heart_stops_early_with_its_best_weights_interrupted_or_not(
    tiny_base: Path, tmp_path: Path
):
    from models.loading import attach, load_base

    job = make_job(tiny_base, tmp_path / "a", epochs=60, early_stopping=STOPPING)
    whole = run_training(job, tmp_path / "a" / "work", lambda event: None)
    assert 6 <= whole.steps < 90
    assert len(whole.loss_curve) == whole.steps
    assert (whole.metrics["best_step"], whole.metrics["held_out_loss"]) in whole.held_out_curve
    assert whole.metrics["best_step"] < whole.steps

    def stop(event: dict[str, Any]) -> None:
        if event.get("step") == whole.steps - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, tmp_path / "b", stop)
    again = run_training(job, tmp_path / "b", lambda event: None)
    assert (again.digest, again.steps) == (whole.digest, whole.steps)
    assert not list((tmp_path / "b").glob("*.safetensors"))

    model, tokenizer = load_base(tiny_base)
    rows = tokenise(read_rows(job["snapshot_path"], split="train"), tokenizer, 512).rows
    config = TrainingSection.model_validate(job["config"])
    held = [rows[i] for i in held_out_rows(rows, config, seed=job["init_seed"])]
    assert len(held) == 2
    ref = AdapterRef(version="v1", digest=whole.digest, path=whole.path, base_digest=whole.base_digest)
    found = held_out_loss(attach(model, ref), held)
    assert found == pytest.approx(whole.metrics["held_out_loss"], rel=1e-4)
    planned = plan_rows(read_rows(job["snapshot_path"], split="train"), tiny_base, config, calibrated=False)
    assert planned.steps == 90  # the most: six rows train


# --- the loop, in this process ---------------------------------------------------------------------

ROWS = [TokenRow((30 + n, 6, 7), (50 + n, 21, 22)) for n in range(12)]
"""Of which three are held out: nine steps in three epochs."""


def fresh(tiny_base: Path) -> Any:
    from models.loading import load_base
    from training.lora import add_lora

    return add_lora(load_base(tiny_base)[0], TrainingSection(rank=4, alpha=8.0), seed=1)


def config_of(every_steps: int, **more: Any) -> TrainingSection:
    stopping = EarlyStopping(share=0.25, every_steps=every_steps, patience=50)
    settings = {"rank": 4, "alpha": 8.0, "epochs": 3, "rows_per_step": 3, "learning_rate": 1e-3, "checkpoint_steps": 1}
    return TrainingSection(early_stopping=stopping, **{**settings, **more})


def run(model: Any, work: Path, config: TrainingSection, on_step: Any = lambda event: None) -> TrainResult:
    return train_lora(model, ROWS, config, seed=3, work_dir=work, fingerprint="f", on_step=on_step)


def weights(model: Any) -> list[list[float]]:
    return [p.detach().flatten().tolist() for p in model.parameters() if p.requires_grad]


def test_the_last_step_is_looked_at_too_killed_or_not(tiny_base: Path, tmp_path: Path):
    config, events = config_of(4, checkpoint_steps=4), list[dict[str, Any]]()
    model = fresh(tiny_base)
    whole = run(model, tmp_path / "whole", config, events.append)
    assert [event["step"] for event in events if "held_out" in event] == [4, 8, 9]
    assert list(whole.held_out) == sorted(whole.held_out, reverse=True)
    assert best_look(whole.held_out, config, whole.steps) == {"held_out_loss": whole.held_out[-1], "best_step": 9.0}
    again = run(fresh(tiny_base), tmp_path / "whole", config)  # killed before it was published
    assert (again.resumed_at, again.held_out) == (9, whole.held_out)

    def die(event: dict[str, Any]) -> None:
        if event["step"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fresh(tiny_base), tmp_path / "killed", config, die)
    other = fresh(tiny_base)
    resumed = run(other, tmp_path / "killed", config)
    assert (resumed.resumed_at, resumed.held_out) == (8, whole.held_out)
    assert weights(other) == weights(model)


def test_a_run_shorter_than_every_steps_is_looked_at_once(tiny_base: Path, tmp_path: Path):
    config = config_of(100)
    done = run(fresh(tiny_base), tmp_path, config)
    assert (done.steps, len(done.held_out)) == (9, 1)
    assert best_look(done.held_out, config, done.steps)["best_step"] == 9
    assert best_look((2.0, 1.5, 1.5, 1.7), config_of(10), 35) == {"held_out_loss": 1.5, "best_step": 30.0}
    assert best_look((), config, 9) == {}


@pytest.mark.parametrize(("fault", "message"), [("nan", "loss of the rows held out"), ("memory", "memory is used up")])
def test_a_look_that_fails_stops_the_run_and_the_last_good_checkpoint_stays(
    tiny_base: Path, tmp_path: Path, fault: str, message: str
):
    import torch

    config, model, steps = config_of(2), fresh(tiny_base), [0]
    apart = held_out_rows(ROWS, config, seed=3)
    if fault == "nan":
        poison(model, ROWS[apart[0]].prompt[0], lambda: steps[-1] >= 3)
    else:
        model.register_forward_pre_hook(lambda *_: (steps[-1] < 3 or model.training or torch.empty(2**50)) and None)
    with pytest.raises(TrainingError, match=message) as caught:
        run(model, tmp_path, config, lambda event: steps.append(event["step"]))
    assert "step 4" in str(caught.value.where)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([BEST, FILE])
    resumed = run(fresh(tiny_base), tmp_path, config)
    assert resumed.resumed_at == 3
