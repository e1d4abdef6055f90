"""Which rows train in which optimiser step, and how a step's rows are packed into sequences without padding."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence, Sized
from typing import TypeVar

from models.packing import bins

S = TypeVar("S", bound=Sized)

PACK_TOKENS = {"cpu": 640, "cuda": 4096}
"""Most tokens of one packed sequence: all weights are read for each, and the tensors of all its tokens are kept. On two
cores, by tokens per second against packs of 192 under a mask: by row 192 1.0, 320 1.1, 448 1.15, 640 1.2, 900 1.24."""


def pack_tokens(device: str) -> int:
    """Most tokens of one pack on a type of device, as torch names it."""
    return PACK_TOKENS.get(device, PACK_TOKENS["cuda"])


def schedule(count: int, *, epochs: float, rows_per_step: int, seed: int) -> list[list[int]]:
    """Row indices of every optimiser step.

    Each epoch is a new permutation from the seed; a fraction of an epoch takes the first rows of its permutation.
    Every step has between half and all of `rows_per_step` rows, so that no step is a noisy remainder.

    Args:
        count: number of rows, at least 1.
        epochs: passes over the rows, may be a fraction.
        rows_per_step: rows of one optimiser step.
        seed: same seed, same schedule.
    """
    total = max(1, round(count * epochs))
    stream: list[int] = []
    for epoch in range(math.ceil(total / count)):
        order = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        stream += order
    stream = stream[:total]
    steps = max(1, math.ceil(total / rows_per_step))
    edges = [round(total * step / steps) for step in range(steps + 1)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


def split_step(rows: Sequence[S], max_tokens: int) -> list[list[S]]:
    """A step's rows in groups of at most `max_tokens` tokens each, like lengths together; gradients accumulate."""
    ordered = sorted(rows, key=len)
    return [[ordered[i] for i in group] for group in bins((len(r) for r in ordered), max_tokens)]
