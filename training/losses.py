"""Losses over whole answers: log-probabilities in, one number a row out. Differentiable; no model in here.

`tests/training/test_against_trl.py` holds each against TRL's own trainers.
"""

from __future__ import annotations

from typing import Any


def dpo_losses(chosen: Any, rejected: Any, reference: Any, *, beta: float, label_smoothing: float = 0.0) -> Any:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, equation 7).

        d = (log p(chosen) - log ref(chosen)) - (log p(rejected) - log ref(rejected))
        L = -log sigmoid(beta d)

    With a share e of preferences the wrong way round, its unbiased form (Chowdhury et al., arXiv 2403.00409):

        L = (-(1 - e) log sigmoid(beta d) + e log sigmoid(-beta d)) / (1 - 2e)

    Args:
        chosen: (n,) log-probabilities of the chosen answers, nats, summed over their tokens.
        rejected: (n,) the same of the rejected ones.
        reference: (n, 2) what the reference gives to both.
        beta: how near the reference the model is held.
        label_smoothing: e, below .5.

    Returns:
        (n,) losses; log 2 each where the model is the reference.
    """
    from torch.nn.functional import logsigmoid

    margin = beta * ((chosen - reference[:, 0]) - (rejected - reference[:, 1]))
    right, wrong = -logsigmoid(margin), -logsigmoid(-margin)
    return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)


def kto_losses(answers: Any, reference: Any, labels: Any, kl: Any, *, beta: float, sides: tuple[float, float]) -> Any:
    """Kahneman-Tversky optimisation (Ethayarajh et al., arXiv 2402.01306, equation 7).

        r = log p(answer) - log ref(answer)
        L = up   (1 - sigmoid(beta (r - kl)))    a good answer
        L = down (1 - sigmoid(beta (kl - r)))    a bad one

    Args:
        answers: (n,) log-probabilities of the answers, nats, summed over their tokens.
        reference: (n,) what the reference gives them.
        labels: (n,) +1 or -1.
        kl: the point of reference, at least 0 and without a gradient; see `kto_point_of_reference`.
        beta: how near the reference the model is held.
        sides: weights (up, down).

    Returns:
        (n,) losses.
    """
    import torch

    gain = labels * (answers - reference - kl)
    weight = torch.where(labels > 0, sides[0], sides[1])
    return weight * (1 - torch.sigmoid(beta * gain))


def kto_point_of_reference(others: Any, reference: Any) -> Any:
    """How far the model is from the reference: mean of log p - log ref over answers to other prompts, at least 0.

    Args:
        others: (n,) log-probabilities of other rows' answers to these prompts.
        reference: (n,) what the reference gives them.
    """
    return (others - reference).mean().clamp(min=0)


def kto_sides(up: int, down: int) -> tuple[float, float]:
    """Weights (up, down) with which both sides of all labels weigh alike: the larger side's is below 1.

    The paper asks for weight x number of one side within [1, 4/3] of the other's (arXiv 2402.01306, equation 8).
    """
    if not up or not down:
        return 1.0, 1.0
    return min(1.0, down / up), min(1.0, up / down)
