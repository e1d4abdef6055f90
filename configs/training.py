"""How an adapter is trained: LoRA, its steps and its rows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.distributed import DistributedSection
from configs.limits import MAX_RANK
from configs.objectives import ObjectivesSection
from configs.privacy import PrivacySection
from configs.section import Fraction, Positive, Section, Size


class EarlyStopping(Section):
    """When training ends before its epochs do: on the loss of rows that do not train."""

    share: Annotated[float, Field(gt=0.0, le=0.5)] = 0.1
    """Share of the teaching rows that is held out."""
    every_steps: Size = 10
    """Optimiser steps between looks."""
    patience: Size = 3
    """Looks without a gain after which training ends; the weights of the best look are taken."""
    min_gain: Annotated[float, Field(ge=0)] = 0.0
    """Smallest gain that counts, nats per token."""


LongRows = Literal["turns", "truncate", "drop", "fail"]


class TrainingSection(Section):
    """LoRA fine-tuning."""

    objectives: ObjectivesSection = ObjectivesSection()
    rank: Annotated[int, Field(ge=1, le=MAX_RANK)] = 16
    """At most what evaluation and serving load: a larger adapter would be trained for nothing."""
    alpha: Positive = 32.0
    dropout: Fraction = 0.0
    rslora: bool = False
    learning_rate: Positive = 4e-4
    epochs: Positive = 2.0
    rows_per_step: Size = 12
    """Rows packed into one optimiser step."""
    replay_kl: Annotated[float, Field(ge=0)] = 2.0
    """Weight of KL(base || adapter), nats per token over all positions of the replay rows, in the place of the
    likelihood of their answers; 0 trains on the answers."""
    warmup_share: Fraction = 0.05
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls after the warm-up, to just above zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    max_row_tokens: Size = 512
    long_rows: LongRows = "turns"
    """A longer row loses its oldest turns (`turns`), and the beginning of its last message too (`truncate`); what is
    still too long is dropped. `drop` leaves every longer row out; `fail` trains nothing while there is one. All are
    counted; a system message, and an answer that is taught, are never cut."""
    seed: int = 17
    checkpoint_steps: Size = 10
    """Optimiser steps between checkpoints."""
    checkpoint_minutes: Positive = 10.0
    """A checkpoint is written earlier if the last one is older than this."""
    early_stopping: EarlyStopping | None = None
    """Off by default: all epochs are run."""
    gradient_checkpointing: bool = False
    """Keep only each layer's input and compute the rest again: a fraction of the activations, a third more time."""
    quantization: Literal["none", "nf4", "int8"] = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    distributed: DistributedSection = DistributedSection()

    @model_validator(mode="after")
    def _what_can_be_sharded(self) -> TrainingSection:
        if self.distributed.strategy == "fsdp" and self.quantization != "none":
            raise ValueError("fsdp shards a base in full precision: set quantization: none, or strategy: ddp")
        return self

    privacy: PrivacySection | None = None
    """Differential privacy for the people whose rows train; off by default. Needs the extra `privacy`."""

    @model_validator(mode="after")
    def _privacy_can_hold(self) -> TrainingSection:
        if self.privacy is None:
            return self
        if self.early_stopping is not None:
            raise ValueError("`privacy` with `early_stopping`: when training ends would tell of the rows held out")
        if self.distributed.together > 1:
            raise ValueError("`privacy` trains in one process: set distributed.processes and distributed.machines to 1")
        if self.objectives.dpo.weight > 0 or self.objectives.kto.weight > 0:
            raise ValueError(
                "`privacy` is for corrections: set objectives.dpo.weight (preferences then teach by their chosen "
                "answer) and objectives.kto.weight to 0"
            )
        return self
