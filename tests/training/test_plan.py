import threading
from pathlib import Path

import pytest
from training_samples import make_job, snapshot_rows

from configs.errors import TrainingError
from configs.schema import TrainingSection
from data_contracts.records import AdapterArtifact
from models.packing import TokenRow
from training.calibrate import lengths
from training.data import TokenisedRows
from training.fit import steps_of, ways_out
from training.launch import run_training
from training.memory import BaseShape, base_shape, memory, shares_of, slowest_flop, step_flop
from training.plan import plan, plan_rows, sample_of
from training.trainer import train

SMOLLM = BaseShape(
    parameters=134_515_008,
    linear=((576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)) * 30,
    hidden=576,
    intermediate=1536,
    layers=30,
    vocabulary=49152,
    by_row=True,
)


def _rows(count: int, prompt: int = 30, completion: int = 15, *, replay: bool = False) -> list[TokenRow]:
    return [TokenRow((1,) * prompt, (2,) * completion, replay=replay) for _ in range(count)]


def test_the_shape_is_that_of_the_loaded_base_and_its_adapter(tiny_base: Path):
    from models.loading import load_base
    from training.lora import add_lora

    shape = base_shape(tiny_base)
    model, _ = load_base(tiny_base)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.vocabulary == model.get_input_embeddings().weight.shape[0]
    wrapped = add_lora(model, TrainingSection(rank=8), seed=1)
    assert shape.trainable(8) == sum(p.numel() for p in wrapped.parameters() if p.requires_grad)


def test_work_grows_with_tokens_and_a_reminder_costs_more_than_a_lesson():
    config = TrainingSection()
    one = step_flop(_rows(4), SMOLLM, config, "cpu")
    assert step_flop(_rows(8), SMOLLM, config, "cpu") == pytest.approx(2 * one, rel=0.02)
    assert 1.3 * one < step_flop(_rows(4, replay=True), SMOLLM, config, "cpu") < 3 * one
    assert step_flop(_rows(4, replay=True), SMOLLM, config.model_copy(update={"replay_kl": 0.0}), "cpu") == one


def test_memory_is_that_of_the_largest_packed_sequence_and_each_way_out_shrinks_it():
    config = TrainingSection()
    steps = [_rows(4), [*_rows(3), TokenRow((1,) * 400, (2,) * 40)], _rows(4)]
    whole, at = memory(steps, SMOLLM, config, "cpu")
    assert at == 1
    for change in ({"gradient_checkpointing": True}, {"quantization": "nf4"}):
        assert memory(steps, SMOLLM, config.model_copy(update=change), "cpu")[0].needed < whole.needed
    assert memory([steps[0]], SMOLLM, config, "cpu")[0].activations < whole.activations
    assert whole.weights == pytest.approx(538, abs=1)


def test_what_cannot_fit_is_refused_with_what_would():
    rows = [*_rows(20), TokenRow((1,) * 460, (2,) * 40)]
    config = TrainingSection()
    needed = memory(steps_of(rows, config), SMOLLM, config, "cpu")[0].total
    ways = ways_out(rows, SMOLLM, config, "cpu", needed - 100)
    assert any(way.startswith("gradient_checkpointing: true (about") for way in ways)
    assert any(way.startswith("quantization: nf4") for way in ways)
    assert not any(way.startswith("rows_per_step: 3 (") for way in ways)  # one row alone is the largest pack
    assert ways_out(rows, SMOLLM, config, "cpu", 100) == []


def test_a_plan_refuses_before_it_loads_anything(tiny_base: Path):
    rows = TokenisedRows(tuple(_rows(8)), (), ())
    with pytest.raises(TrainingError, match="does not fit") as caught:
        plan(rows, tiny_base, TrainingSection(), limit_mb=50)
    assert "50 MB" in str(caught.value.expected)
    assert "smaller base" in str(caught.value.fix)


def test_the_sample_is_spread_over_the_run():
    steps = [_rows(2) for _ in range(100)]
    assert len(sample_of(steps)) == 12
    assert len(sample_of(steps[:3])) == 6
    assert sample_of([]) == []


def test_a_calibration_is_told_lengths_and_no_tokens():
    assert lengths([TokenRow((5, 6, 7), (8, 9), replay=True)]) == [("replay", 3, 2, 0)]


def test_nothing_to_train_on_costs_nothing(tiny_base: Path):
    found = plan_rows([], tiny_base, TrainingSection())
    assert (found.rows, found.steps, found.tokens, found.minutes, found.memory_mb) == (0, 0, 0, 0.0, 0)


def test_a_plan_counts_what_the_run_then_does(tiny_base: Path, tmp_path: Path):
    job = make_job(tiny_base, tmp_path, epochs=10)
    config = TrainingSection.model_validate(job["config"])
    found = plan_rows(snapshot_rows(), tiny_base, config, threads=1)
    artifact: AdapterArtifact = run_training(job, tmp_path / "work", lambda event: None)
    assert (found.rows, found.steps, found.tokens) == (8, artifact.steps, artifact.tokens)
    assert found.calibrated_steps == 4
    # A tiny model's process is nearly all libraries, whose pages come and go; the benchmark has the real base.
    assert found.memory_mb == pytest.approx(artifact.metrics["peak_memory_mb"], rel=0.4)
    assert found.memory_formula_mb == pytest.approx(artifact.metrics["peak_memory_mb"], rel=0.4)
    assert found.training_s > 0
    assert found.start_s > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, about its own switch
def test_gradient_checkpointing_changes_no_loss(tiny_base: Path, tmp_path: Path):
    curves = []
    for name, on in (("a", False), ("b", True)):
        job = make_job(tiny_base, tmp_path / name, gradient_checkpointing=on)
        job |= {"work_dir": str(tmp_path / name / "work"), "threads": 1}
        curves.append(train(job, lambda event: None, threading.Event())["artifact"]["loss_curve"])
    assert curves[1] == pytest.approx(curves[0], rel=1e-5)


def test_several_processes_share_the_work_and_a_sharded_base_needs_less_of_each(tiny_base: Path):
    config = TrainingSection()

    def shared(**setting: object) -> TrainingSection:
        return TrainingSection.model_validate({"distributed": setting})

    four, sharded = shared(processes=4), shared(processes=4, strategy="fsdp")
    steps = [[*_rows(9), *_rows(4, replay=True)]]
    one = slowest_flop(steps[0], SMOLLM, config, "cuda")
    assert one == step_flop(steps[0], SMOLLM, config, "cuda")
    assert one / 4 < slowest_flop(steps[0], SMOLLM, four, "cuda") < one / 2, "the fullest share has 4 of 13 rows"
    assert slowest_flop(steps[0], SMOLLM, four, "cpu") > one, "without GPUs they share the cores"
    assert sorted(map(len, shares_of(steps[0], four))) == [3, 3, 3, 4]
    whole, part = (memory(steps, SMOLLM, each, "cuda")[0] for each in (four, sharded))
    assert part.weights < 0.6 * whole.weights
    assert part.activations == whole.activations < memory(steps, SMOLLM, config, "cuda")[0].activations
    ways = ways_out(steps[0], SMOLLM, four, "cuda", whole.needed - 50)
    assert any(way.startswith("distributed.strategy: fsdp") for way in ways)
    assert not any("nf4" in way for way in ways_out(steps[0], SMOLLM, sharded, "cuda", whole.needed))
    found = plan(TokenisedRows(tuple(steps[0]), (), ()), tiny_base, four, calibrated=False)
    assert found.processes == 4
    assert "not calibrated across devices" in found.note
    assert plan(TokenisedRows(tuple(steps[0]), (), ()), tiny_base, config, calibrated=False).note == ""
