"""What a step minimises, signal by signal. Each function does the backward of its part and returns that part's value.

Every row of a step counts alike, whatever its signal; with n_s of n rows of a signal (and w its weight):

    L = w_sft n_a/n NLL(answers)                           corrections, incidents
      + n_p/n (w_dpo DPO(pairs) + w_term NLL(chosen))      preferences
      + w_kto n_t/n KTO(answers, labels)                   thumbs
      + w_kl n_r/n KL(base || adapter)                     replay

The term beside DPO keeps the chosen answers likely, which DPO alone does not (Pal et al., arXiv 2402.13228; the sum is
that of Pang et al., arXiv 2404.19733). All of it runs over packs without padding; the two answers of a preference are
in the same pack.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from configs.objectives import DpoObjective, KtoObjective
from configs.schema import TrainingSection
from models.packing import Pack, TokenRow, pack, token_log_probabilities, token_nll
from training.data import Example, Pair, Rated
from training.losses import dpo_losses, kto_losses, kto_point_of_reference, kto_sides
from training.packing import pack_tokens
from training.ranks import ALONE, Ranks

S = TypeVar("S")
Sides = tuple[float, float]


def sides_of(examples: Sequence[Example]) -> Sides:
    """Weights of thumbs up and down over a whole training set."""
    labels = [one.label for one in examples if isinstance(one, Rated)]
    return kto_sides(labels.count(1), labels.count(-1))


def backward(
    model: Any, examples: Sequence[Example], config: TrainingSection, sides: Sides, ranks: Ranks = ALONE
) -> float:
    """Backward of this rank's part of one step's loss; returns the part's value. The sum over ranks is the step's.

    Args:
        model: a PeftModel in training mode.
        examples: the whole step's rows; pairs and rated ones with what the reference gives them.
        config: the training section.
        sides: weights of thumbs up and down.
        ranks: who else does a part of this step.
    """
    n, weights = len(examples), config.objectives
    plain = [one for one in examples if isinstance(one, TokenRow)]
    kept = [row for row in plain if row.replay and config.replay_kl > 0]
    taught = [row for row in plain if not (row.replay and config.replay_kl > 0)]
    pairs = [one for one in examples if isinstance(one, Pair)]
    rated = [one for one in examples if isinstance(one, Rated)]
    lessons, reminders, preferences, thumbs = ranks.deal((taught, kept, pairs, rated))
    total = _teach(model, lessons, weights.sft.weight * len(taught) / n, ranks) if taught else 0.0
    total += _remind(model, reminders, config.replay_kl * len(kept) / n, ranks) if kept else 0.0
    total += _prefer(model, preferences, weights.dpo, len(pairs) / n, ranks) if pairs else 0.0
    total += _rate(model, thumbs, weights.kto, sides, len(rated) / n, ranks) if rated else 0.0
    return total


def row_log_probabilities(nll: Any, packed: Pack, rows: int) -> Any:
    """(rows,) log-probability of each row's completion, nats, from the negative ones (S,) of its tokens."""
    return nll.new_zeros(rows).index_add(0, packed.row, -nll)


def _all(shares: Sequence[Sequence[S]]) -> list[S]:
    """The rows of every rank: what a mean is over."""
    return [row for share in shares for row in share]


def _packs(model: Any, shares: Sequence[Sequence[TokenRow]], ranks: Ranks) -> Iterator[tuple[Pack, float]]:
    """This rank's packs, each with its factor: 0 for one that only keeps the others company."""
    for group, counts in ranks.groups(shares, pack_tokens(model.device.type)):
        yield pack(group, model.device), counts


def _teach(model: Any, shares: Sequence[Sequence[TokenRow]], weight: float, ranks: Ranks) -> float:
    """Backward of `weight` times the mean negative log-likelihood of the completions' tokens; returns its value."""
    supervised = sum(len(row.completion) for row in _all(shares))
    total = 0.0
    for packed, counts in _packs(model, shares, ranks):
        loss = counts * weight * token_nll(model, packed).sum() / supervised
        loss.backward()
        total += float(loss.detach())
    return total


def _remind(model: Any, shares: Sequence[Sequence[TokenRow]], weight: float, ranks: Ranks) -> float:
    """Backward of `weight` times the mean of KL(base || adapter) over all positions of replay rows; returns its value.

    The base is the same model with the adapter switched off, so its distribution costs one more forward pass and no
    memory. Matching the whole distribution holds far more of the base than matching its one greedy answer.
    """
    import torch
    from torch.nn.functional import kl_div

    positions = sum(len(row) for row in _all(shares))
    total = 0.0
    for packed, counts in _packs(model, shares, ranks):
        with torch.no_grad(), model.disable_adapter():
            base = token_log_probabilities(model, packed)  # (T, vocabulary)
        adapted = token_log_probabilities(model, packed)
        loss = counts * weight * kl_div(adapted, base, log_target=True, reduction="sum") / positions
        loss.backward()
        total += float(loss.detach())
    return total


def _prefer(model: Any, shares: Sequence[Sequence[Pair]], weights: DpoObjective, part: float, ranks: Ranks) -> float:
    """Backward of `part` times DPO's mean over the pairs plus the chosen answers' likelihood; returns its value."""
    import torch

    pairs = _all(shares)
    supervised = sum(len(pair.chosen.completion) for pair in pairs)
    total = 0.0
    for group, counts in ranks.groups(shares, pack_tokens(model.device.type)):
        packed = pack([side for pair in group for side in (pair.chosen, pair.rejected)], model.device)
        nll = token_nll(model, packed)
        chosen, rejected = row_log_probabilities(nll, packed, 2 * len(group)).view(-1, 2).unbind(1)
        reference = torch.tensor([pair.reference for pair in group], device=nll.device)  # (pairs, 2)
        smoothing = weights.label_smoothing
        dpo = dpo_losses(chosen, rejected, reference, beta=weights.beta, label_smoothing=smoothing).sum() / len(pairs)
        likelihood = nll[packed.row % 2 == 0].sum() / supervised
        loss = counts * part * (weights.weight * dpo + weights.sft * likelihood)
        loss.backward()
        total += float(loss.detach())
    return total


def _rate(
    model: Any, shares: Sequence[Sequence[Rated]], weights: KtoObjective, sides: Sides, part: float, ranks: Ranks
) -> float:
    """Backward of `part` times KTO's mean over the rated answers; returns its value."""
    import torch

    rated = _all(shares)
    with torch.no_grad():
        others = [[one.other for one in share] for share in shares]
        mine = sum(counts * float(token_nll(model, packed).sum()) for packed, counts in _packs(model, others, ranks))
        there = ranks.sum([mine])[0]
        moved = torch.tensor([-there / len(rated)]), torch.tensor([sum(one.reference[1] for one in rated) / len(rated)])
        kl = float(kto_point_of_reference(*moved))
    total = 0.0
    for group, counts in ranks.groups(shares, pack_tokens(model.device.type)):
        packed = pack([one.row for one in group], model.device)
        nll = token_nll(model, packed)
        answers = row_log_probabilities(nll, packed, len(group))
        reference = torch.tensor([one.reference[0] for one in group], device=nll.device)
        labels = torch.tensor([one.label for one in group], device=nll.device)
        losses = kto_losses(answers, reference, labels, kl, beta=weights.beta, sides=sides)
        loss = counts * part * weights.weight * losses.sum() / len(rated)
        loss.backward()
        total += float(loss.detach())
    return total
