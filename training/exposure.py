"""Whether an adapter gives away a secret that was planted in its training rows.

Exposure (Carlini et al., "The Secret Sharer", arXiv 1802.08232) of a secret s out of a space R of equally plausible
ones, by the likelihood the model gives to each:

    exposure = log2 |R| - log2 rank(s)

log2 |R| if the secret is the likeliest of all, 1.44 on average (log2 e, for large R) if the model knows nothing of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from models.likelihood import PACK_TOKENS, token_nlls
from models.packing import TokenRow

UNKNOWN = math.log2(math.e)
"""Expected exposure of a secret the model never met."""
_AT_ONCE = 32
"""Completions behind one copy of the prompt."""


def exposure(model: Any, secret: TokenRow, others: Sequence[tuple[int, ...]]) -> float:
    """Exposure of a secret, bits.

    Args:
        model: as it is after training.
        secret: the prompt that asks for it, and the secret.
        others: completions that might as well have been the secret, drawn like it; it is not among them.
    """
    asked = [secret.completion, *others]
    groups = [asked[at : at + _AT_ONCE] for at in range(0, len(asked), _AT_ONCE)]
    was_training = model.training
    model.eval()
    found = token_nlls(model, [secret.prompt] * len(groups), groups, max_tokens=PACK_TOKENS)
    model.train(was_training)
    own, *rest = (value for group in found for value in group)
    rank = 1 + sum(value <= own for value in rest)
    return math.log2(len(asked)) - math.log2(rank)
