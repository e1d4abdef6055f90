from pathlib import Path
from typing import Any

import pytest
from training_samples import make_job

from configs.errors import TrainingError
from configs.schema import EarlyStopping, TrainingSection
from data_contracts.records import AdapterRef
from data_contracts.snapshots import read_rows
from models.packing import TokenRow
from training.data import tokenise
from training.early_stopping import held_out_loss, held_out_rows, is_over
from training.launch import run_training
from training.plan import plan_rows
from training.sft import learning_rate

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
