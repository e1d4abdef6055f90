"""What a training run will cost, before it is started: rows, tokens, steps, memory and time, or why it cannot run.

Rows, tokens and steps are exact: they come from the trainer's own tokeniser and schedule. Time is the FLOP of all steps
at the rate of a few timed ones (`training.calibrate`); memory is the formula of `training.memory`, and what the
calibration, which runs the step with the largest packed sequence, really held. With several processes all of it is for
one device: memory of its share, and time by the fullest share of each step, at the rate of one device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.schema import TrainingSection
from data_contracts.records import SnapshotRow
from models.jobs import Emit
from models.packing import TokenRow
from training.calibrate import SEED, Calibration, calibrate, one_pass
from training.data import Example, Pair, Rated, TokenisedRows
from training.early_stopping import held_out_rows
from training.fit import refuse, steps_of, trained
from training.memory import (
    BaseShape,
    Memory,
    available_mb,
    base_shape,
    largest_pass,
    memory,
    passes_flop,
    shares_of,
    slowest_flop,
    step_flop,
)
from training.passes import look_passes, reference_passes, supervised

SAMPLE_STEPS = 6
"""Steps of the sample; four of them count: the first warms up, the last saves a checkpoint."""
ASSUMED_FLOP_PER_S = {"cpu": 5e10, "cuda": 5e13}
"""Without a calibration: what two cores with AVX2, and a GPU of the smaller kind, do here with short rows."""
ASSUMED_START_S = 20.0


@dataclass(frozen=True)
class Plan:
    """A run's size and cost. Memory in MB (10^6 bytes), time in seconds."""

    rows: int
    pairs: int
    """Of these, preferences that train as such."""
    thumbs: int
    rows_shortened: int
    rows_skipped: int
    rows_unused: int
    """Rows whose objective has no weight."""
    tokens_per_epoch: int
    tokens: int
    supervised_tokens_per_epoch: int
    steps: int
    base_parameters: int
    trainable_parameters: int
    device: str
    start_s: float
    training_s: float
    tokens_per_s: float
    memory_mb: float
    memory_formula_mb: float
    memory_parts_mb: dict[str, float]
    available_mb: float
    calibrated_steps: int
    """Timed steps behind `training_s`; 0: assumed, not measured."""
    processes: int = 1
    """That train together; memory is that of one."""
    note: str = ""
    """What the figures leave out."""

    @property
    def minutes(self) -> float:
        """From start to adapter."""
        return round((self.start_s + self.training_s) / 60, 1)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the minutes in all."""
        return {**asdict(self), "minutes": self.minutes}


def sample_of(steps: Sequence[Sequence[Example]], count: int = SAMPLE_STEPS) -> list[Example]:
    """The rows of `count` steps spread evenly over a run (of all steps of a shorter one)."""
    count = min(count, len(steps))
    picked = [i * len(steps) // count for i in range(count)]
    return [row for i in picked for row in steps[i]]


def _timed_flop(
    sample: Sequence[Example], heaviest: Sequence[Example], found: Calibration, shape: BaseShape,
    config: TrainingSection, device: str,
) -> float:  # fmt: skip
    """FLOP of the steps a calibration timed, which has shuffled its rows like any run."""
    rows = sample if found.timed == "sample" else heaviest
    once = one_pass(config).model_copy(update={"seed": SEED})
    steps = steps_of(rows, once)[found.first : found.first + len(found.step_s)]
    return sum(step_flop(step, shape, config, device) for step in steps)


def note_of(config: TrainingSection, device: str, *, measured: bool) -> str:
    """What a plan for several processes does not know; empty for one."""
    setting = config.distributed
    if setting.together == 1:
        return ""
    of = "process" if device == "cpu" else "GPU"
    rate = ("the machine's" if device == "cpu" else "one GPU's") + " measured" if measured else "an assumed"
    fetched = " and fetching the base's layers" if setting.sharded else ""
    return (
        f"memory is of one {of}; time is {rate} rate shared among {setting.together}, not calibrated across devices: "
        f"exchanging gradients{fetched} is not in it"
    )


def plan(
    tokenised: TokenisedRows,
    base_path: Path,
    config: TrainingSection,
    *,
    threads: int = 0,
    calibrated: bool = True,
    limit_mb: float | None = None,
    on_event: Emit = lambda _: None,
) -> Plan:
    """Say what training these rows on this base will cost.

    Args:
        tokenised: what the trainer's tokeniser makes of the snapshot.
        base_path: folder of the base model.
        config: the training section.
        threads: CPU threads of the run; 0 leaves torch's choice.
        calibrated: time a few steps on the real base; False assumes a rate and takes the formula's memory. So is a base
            that is to be sharded, for one device may not hold it.
        limit_mb: memory of the device the run is planned for; None takes what this one has free.
        on_event: called with the calibration's events.

    Raises:
        TrainingError: the run cannot fit; says what would.
    """
    from models.loading import pick_device

    device = pick_device(config.device)
    shape = base_shape(base_path)
    limit = available_mb(device) if limit_mb is None else limit_mb
    if device == "cpu":
        limit /= config.distributed.processes  # they share the machine's memory
    rows = trained(tokenised.rows, config)
    steps = steps_of(rows, config)
    parts, heaviest_at = memory(steps, shape, config, device)
    if steps:
        refuse(rows, parts.needed, shape, config, device, limit)
    found: Calibration | None = None
    total = sum(slowest_flop(step, shape, config, device) for step in steps)
    total += passes_flop(reference_passes(tokenised.rows, device), shape, config)
    if config.early_stopping is not None:
        apart = held_out_rows(tokenised.rows, config, seed=config.seed) if steps else []
        held = [row for i in apart if isinstance(row := tokenised.rows[i], TokenRow)]
        looks = -(-len(steps) // config.early_stopping.every_steps)  # the last step too
        total += looks * passes_flop(look_passes(held, device), shape, config)
    training_s = total / ASSUMED_FLOP_PER_S.get(device, ASSUMED_FLOP_PER_S["cuda"])
    if calibrated and steps and not config.distributed.sharded:
        heaviest = max(shares_of(steps[heaviest_at], config), key=lambda r: sum(largest_pass(r, shape, config, device)))
        sample = sample_of(steps)
        found = calibrate(base_path, heaviest, sample, config, threads=threads, on_event=on_event)
        timed = _timed_flop(sample, heaviest, found, shape, config, device)
        training_s = total * sum(found.step_s) / timed
        refuse(rows, found.peak_mb - parts.mapped, shape, config, device, limit)
    return _plan_of(tokenised, steps, shape, config, device, parts, found, training_s, limit)


def _plan_of(
    tokenised: TokenisedRows, steps: Sequence[Sequence[Example]], shape: BaseShape, config: TrainingSection,
    device: str, parts: Memory, found: Calibration | None, training_s: float, limit_mb: float,
) -> Plan:  # fmt: skip
    seen = sum(len(row) for step in steps for row in step)
    return Plan(
        rows=len(tokenised.rows),
        pairs=tokenised.count(Pair),
        thumbs=tokenised.count(Rated),
        rows_shortened=len(tokenised.shortened),
        rows_skipped=len(tokenised.skipped),
        rows_unused=len(tokenised.unused),
        tokens_per_epoch=tokenised.tokens,
        tokens=seen,
        supervised_tokens_per_epoch=sum(supervised(row) for row in tokenised.rows),
        steps=len(steps),
        base_parameters=shape.parameters,
        trainable_parameters=shape.trainable(config.rank),
        device=device,
        start_s=round(found.start_s if found else ASSUMED_START_S if steps else 0.0, 1),
        training_s=round(training_s, 1),
        tokens_per_s=round(seen / training_s, 1) if training_s else 0.0,
        memory_mb=round(found.peak_mb if found else parts.total if steps else 0.0),
        memory_formula_mb=round(parts.total),
        memory_parts_mb={name: round(value) for name, value in asdict(parts).items()},
        available_mb=round(limit_mb),
        calibrated_steps=len(found.step_s) if found else 0,
        processes=config.distributed.together,
        note=note_of(config, device, measured=found is not None),
    )


def plan_rows(rows: Sequence[SnapshotRow], base_path: Path, config: TrainingSection, **options: Any) -> Plan:
    """`plan` of rows of a snapshot; `options` and errors as there.

    Raises:
        ModelUnavailableError: the base's tokenizer has no chat template.
    """
    from models.loading import load_tokenizer
    from training.data import tokenise

    tokenised = tokenise(rows, load_tokenizer(base_path), config.max_row_tokens, config.objectives, config.long_rows)
    return plan(tokenised, base_path, config, **options)
