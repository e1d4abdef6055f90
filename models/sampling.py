"""The next token of each row: greedy, or nucleus sampling with the row's own generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sampler:
    """How one row chooses. `generator` is used only when `temperature` is above 0."""

    temperature: float
    top_p: float
    generator: torch.Generator | None

    @classmethod
    def of(cls, temperature: float, top_p: float, seed: int | None) -> Sampler:
        """A sampler; without a seed its generator is seeded from the system."""
        if temperature <= 0:
            return cls(0.0, 1.0, None)
        generator = torch.Generator(device="cpu")
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed % (1 << 63))
        return cls(temperature, top_p, generator)


def next_tokens(logits: torch.Tensor, samplers: Sequence[Sampler]) -> list[int]:
    """Logits (B, vocabulary) -> one token id per row."""
    chosen: list[int] = logits.argmax(dim=-1).tolist()
    for row, sampler in enumerate(samplers):
        if sampler.generator is not None:
            chosen[row] = _sample(logits[row].float().cpu(), sampler)
    return chosen


def _sample(logits: torch.Tensor, sampler: Sampler) -> int:
    probabilities = torch.softmax(logits / sampler.temperature, dim=-1)
    if sampler.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True)
        # Keep a token while the mass before it is below top_p: the first one always stays.
        ordered[ordered.cumsum(0) - ordered >= sampler.top_p] = 0.0
        return int(order[torch.multinomial(ordered, 1, generator=sampler.generator)])
    return int(torch.multinomial(probabilities, 1, generator=sampler.generator))
