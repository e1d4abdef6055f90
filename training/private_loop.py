"""Fine-tuning under differential privacy: DP-SGD over people, beside the ordinary loop (`training.sft`).

A step's gradient, with P the people drawn, C the clip length, sigma the noise multiplier, q N the people expected:

    g = a (sum_P clip_C(g_person) + N(0, (sigma C)^2)) / (q N) + (1 - a) g_public

g_person is that of the mean over all supervised tokens of one person's rows, g_public that of rows that are nobody's
(the base's own answers; incidents, where the profile calls them public), a the share of private rows. What comes after
the noise (weight of the parts, AdamW, learning rate) costs no privacy.

Everything a person's gradient depends on is theirs alone: their rows are packed by themselves, dropout is seeded by
step and person, and the sum is divided by the number of people *expected*. Loss, tokens, drawn rows, speed and
memory of a step would tell of people too: what is reported is the loss of the public rows and the tokens expected.

The cost: a backward pass for each person drawn, in packs as short as their rows, and one more copy of the gradient.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import TrainingSection
from data_contracts.records import PrivacyMechanism
from models.jobs import JobStopped
from models.packing import TokenRow
from training import checkpoint
from training.checkpoint import Progress
from training.data import Example
from training.faults import finite, naming_batch
from training.noise import SecretStream
from training.objectives import backward, sides_of
from training.packing import schedule
from training.sft import OnStep, TrainResult, learning_rate

_NO_SIDES = sides_of(())


@dataclass(frozen=True)
class PrivateRows:
    """Rows by whose they are.

    Attributes:
        people: rows of each person; empty for somebody whose rows were all too long.
        public: rows of nobody.
    """

    people: tuple[tuple[TokenRow, ...], ...]
    public: tuple[TokenRow, ...]

    @property
    def private_tokens(self) -> int:
        """Tokens of all people's rows."""
        return sum(len(row) for rows in self.people for row in rows)

    @property
    def private_share(self) -> float:
        """Share of private rows."""
        private = sum(len(rows) for rows in self.people)
        return private / (private + len(self.public))


def by_person(rows: Sequence[Example], owners: Sequence[int | None], people: int) -> PrivateRows:
    """Group rows.

    Args:
        rows: tokenised.
        owners: for each row the number of its person, or None for a public one.
        people: how many there are.

    Raises:
        TrainingError: a preference or a thumb; no row of a person.
    """
    own: list[list[TokenRow]] = [[] for _ in range(people)]
    public: list[TokenRow] = []
    for row, owner in zip(rows, owners, strict=True):
        if not isinstance(row, TokenRow):
            raise TrainingError(
                "preferences and thumbs do not train under differential privacy",
                where="training.objectives",
                expected="dpo.weight 0 and kto.weight 0",
                found=type(row).__name__,
            )
        (public if owner is None else own[owner]).append(row)
    if not any(own):
        raise TrainingError(
            "no row of a person to train on",
            where="training.privacy",
            expected="at least one",
            found="public rows only",
        )
    return PrivateRows(tuple(tuple(rows) for rows in own), tuple(public))


def public_steps(count: int, steps: int, config: TrainingSection, seed: int) -> list[list[int]]:
    """Which public rows are in each step: `epochs` passes over them, spread evenly."""
    if not count:
        return [[] for _ in range(steps)]
    stream = [row for step in schedule(count, epochs=config.epochs, rows_per_step=count, seed=seed) for row in step]
    return [stream[len(stream) * n // steps : len(stream) * (n + 1) // steps] for n in range(steps)]


def add_clipped(sums: Sequence[Any], parameters: Sequence[Any], most: float) -> None:
    """Add one person's gradient, scaled down to the length `most` if it is longer, and forget it.

    One that is not finite adds nothing: an error would tell of that person, and no length bounds it.
    """
    import torch

    gradients = [p.grad for p in parameters]
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g.float()) for g in gradients])))
    if norm < float("inf"):  # False for NaN too
        scale = most / max(norm, most)
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient, alpha=scale)
    for parameter in parameters:
        parameter.grad = None


class PrivateStep:
    """Makes the gradient of one step."""

    def __init__(
        self, model: Any, rows: PrivateRows, config: TrainingSection, mechanism: PrivacyMechanism, stream: SecretStream,
        seed: int,
    ) -> None:  # fmt: skip
        self.model, self.rows, self.config, self.mechanism = model, rows, config, mechanism
        self.stream, self.seed = stream, seed
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.public = public_steps(len(rows.public), mechanism.steps, config, seed)

    def tokens(self) -> list[int]:
        """Tokens expected after each step, of all steps so far."""
        private = self.mechanism.sample_rate * self.rows.private_tokens
        public = [sum(len(self.rows.public[n]) for n in picked) for picked in self.public]
        return [round(seen) for seen in itertools.accumulate(private + more for more in public)]

    def __call__(self, step: int) -> float | None:
        """Leave the step's gradient in the parameters; returns the loss of its public rows, None without any."""
        import torch

        sums = [torch.zeros_like(p, dtype=torch.float32) for p in self.parameters]
        for person in self.stream.drawn(step, self.mechanism.people, self.mechanism.sample_rate):
            if self.rows.people[person]:
                # Dropout that went on from the last person's would change with whether they were drawn.
                self._seed_dropout(step, person)
                backward(self.model, self.rows.people[person], self.config, _NO_SIDES)
                add_clipped(sums, self.parameters, self.mechanism.max_grad_norm)
        self._add_noise(sums, step)
        picked = [self.rows.public[n] for n in self.public[step]]
        self._seed_dropout(step, -1)
        loss = backward(self.model, picked, self.config, _NO_SIDES) if picked else None
        share = self.rows.private_share
        expected = self.mechanism.sample_rate * self.mechanism.people
        for parameter, total in zip(self.parameters, sums, strict=True):
            mean = (total * (share / expected)).to(parameter.dtype)
            parameter.grad = mean if parameter.grad is None else parameter.grad.mul_(1 - share).add_(mean)
        return loss

    def _seed_dropout(self, step: int, person: int) -> None:
        import torch

        torch.manual_seed(((self.seed * 1_000_003 + step) * 16_777_259 + person + 1) % 2**63)

    def _add_noise(self, sums: Sequence[Any], step: int) -> None:
        import torch

        deviation = self.mechanism.noise_multiplier * self.mechanism.max_grad_norm
        for part, total in enumerate(sums):
            noise = torch.from_numpy(deviation * self.stream.normals(step, part, total.numel())).view_as(total)
            total.copy_((total.cpu().double() + noise).float())


def train_private(
    model: Any,
    rows: PrivateRows,
    config: TrainingSection,
    mechanism: PrivacyMechanism,
    stream: SecretStream,
    *,
    seed: int,
    work_dir: Path,
    fingerprint: str,
    on_step: OnStep,
    stopped: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train the LoRA weights of `model` in place, resuming from `work_dir` if it holds this run's checkpoint.

    Args:
        model: a PeftModel of `training.lora.add_lora`.
        rows: of `by_person`, with as many people as the mechanism has.
        config: the training section.
        mechanism: what was paid for.
        stream: the run's secret randomness.
        seed: decides the order of public rows and dropout, not the noise.
        work_dir: where the checkpoint is kept.
        fingerprint: digest of everything that decides the outcome, the key's included.
        on_step: as in `training.sft.train_lora`, without tok_s; `loss` is that of public rows, None where a step has
            none.
        stopped: as there.

    Returns:
        `losses` of the steps with public rows, and the tokens expected: nothing of anybody drawn.

    Raises:
        TrainingError: a public loss or weight that is not finite; no memory or disk left. The last good
            checkpoint stays.
        JobStopped: as asked; the checkpoint is on disk.
    """
    import torch

    if len(rows.people) != mechanism.people:
        raise AssertionError("a mechanism for another number of people")
    make = PrivateStep(model, rows, config, mechanism, stream, seed)
    steps, parameters, tokens = mechanism.steps, make.parameters, make.tokens()
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    done = checkpoint.load(work_dir, fingerprint, parameters, optimizer) or Progress(0, [], 0, 0.0)
    resumed_at, seconds_before = done.step, done.seconds
    model.train()
    interval = checkpoint.Interval(config, time.monotonic)
    begun = time.monotonic()
    for step in range(done.step, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, config)
        with naming_batch(step, ()):
            loss = make(step)
            if loss is not None:
                finite(loss, "loss of the public rows", step)
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        done.losses += [] if loss is None else [loss]
        done.step, done.tokens = step + 1, tokens[step]
        elapsed = max(1e-9, time.monotonic() - begun)
        done.seconds = seconds_before + elapsed
        last = done.step == steps
        must_stop = stopped() and not last
        if must_stop or last or interval.due(done.step):
            checkpoint.save(work_dir, fingerprint, done, parameters, optimizer)
            interval.written()
        if must_stop:
            raise JobStopped
        on_step(
            {
                "step": done.step,
                "steps": steps,
                "loss": None if loss is None else round(loss, 5),
                "lr": learning_rate(step, steps, config),
                "eta_s": round(elapsed / (done.step - resumed_at) * (steps - done.step), 1),
            }
        )
    model.eval()
    return TrainResult(done.step, tuple(done.losses), done.tokens, done.seconds, resumed_at)
