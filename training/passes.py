"""Which packed sequences a run sends through the model, as `training.objectives` and `training.reference` do it.

For weighing and timing a run before it is started; a test holds this against what a step really runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from configs.schema import TrainingSection
from models.packing import TokenRow
from training.data import Example, Pair, Rated
from training.packing import pack_tokens, split_step


@dataclass(frozen=True)
class Pass:
    """One packed sequence.

    Attributes:
        rows: what is packed.
        kind: `learn`, forward and backward, logits where a completion is supervised; `remind`, the same with logits at
            every position, after a forward pass of the base (KL); `look`, forward only.
    """

    rows: tuple[TokenRow, ...]
    kind: Literal["learn", "remind", "look"]

    @property
    def tokens(self) -> int:
        """All of them."""
        return sum(len(row) for row in self.rows)

    @property
    def logits(self) -> int:
        """Positions whose logits are computed."""
        return self.tokens if self.kind == "remind" else sum(len(row.completion) for row in self.rows)


def reminds(row: Example, config: TrainingSection) -> bool:
    """True for a replay row that trains by KL(base || adapter)."""
    return isinstance(row, TokenRow) and row.replay and config.replay_kl > 0


def kinds_of(
    examples: Sequence[Example], config: TrainingSection
) -> tuple[list[TokenRow], list[TokenRow], list[Pair], list[Rated]]:
    """A step's rows by what they minimise: those that teach, those that remind, preferences, thumbs."""
    taught = [one for one in examples if isinstance(one, TokenRow) and not reminds(one, config)]
    kept = [one for one in examples if isinstance(one, TokenRow) and reminds(one, config)]
    return taught, kept, [x for x in examples if isinstance(x, Pair)], [x for x in examples if isinstance(x, Rated)]


def step_passes(examples: Sequence[Example], config: TrainingSection, device: str) -> list[Pass]:
    """The passes of one optimiser step."""
    limit = pack_tokens(device)
    taught, kept, pairs, rated = kinds_of(examples, config)
    return [
        *(Pass(tuple(group), "learn") for group in split_step(taught, limit)),
        *(Pass(tuple(group), "remind") for group in split_step(kept, limit)),
        *(
            Pass(tuple(row for pair in group for row in (pair.chosen, pair.rejected)), "learn")
            for group in split_step(pairs, limit)
        ),
        *_looks([one.other for one in rated], limit),  # KTO's point of reference
        *(Pass(tuple(one.row for one in group), "learn") for group in split_step(rated, limit)),
    ]


def reference_passes(examples: Sequence[Example], device: str) -> list[Pass]:
    """The passes with which the reference is asked, once before training."""
    rows: list[TokenRow] = []
    for one in examples:
        rows += (one.chosen, one.rejected) if isinstance(one, Pair) else ()
        rows += (one.row, one.other) if isinstance(one, Rated) else ()
    return _looks(rows, pack_tokens(device))


def look_passes(rows: Sequence[TokenRow], device: str) -> list[Pass]:
    """The passes of one look at rows held out (`training.early_stopping`)."""
    return _looks(rows, pack_tokens(device))


def _looks(rows: Sequence[TokenRow], limit: int) -> list[Pass]:
    return [Pass(tuple(group), "look") for group in split_step(rows, limit)]


def supervised(one: Example) -> int:
    """Tokens of an example that are supervised."""
    if isinstance(one, Pair):
        return len(one.chosen.completion) + len(one.rejected.completion)
    return len(one.row.completion if isinstance(one, Rated) else one.completion)
