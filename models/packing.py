"""Several rows in one sequence: restarting positions, and logits only where a token is supervised.

Rows see themselves only: by `models.row_attention` where the model has it; else transformers sees the restarts in
`position_ids` and builds a block-diagonal causal mask, but only with `use_cache=False` and no attention mask: with a
cache the rows silently see each other (a test keeps both facts).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from models.row_attention import row_lengths


@dataclass(frozen=True)
class TokenRow:
    """One row as tokens: the prompt, and the completion with its end of turn. Only the completion is supervised.

    `replay` marks the base's own answer, kept against forgetting.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    replay: bool = False

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


@dataclass(frozen=True)
class Pack:
    """Rows packed into one sequence of T tokens, S of them supervised.

    `ids` and `positions` (1, T); `at` (S,): positions whose logits predict `targets` (S,); `row` (S,): the row each
    supervised token belongs to; `lengths` of the rows, in order.
    """

    ids: Any
    positions: Any
    at: Any
    targets: Any
    row: Any
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """T: there is no padding."""
        return int(self.ids.shape[1])


def pack(rows: Sequence[TokenRow], device: str = "cpu") -> Pack:
    """Concatenate rows.

    Raises:
        ValueError: a row without prompt or completion.
    """
    import torch

    ids: list[int] = []
    positions: list[int] = []
    at: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    for index, row in enumerate(rows):
        if not row.prompt or not row.completion:
            raise ValueError(f"row {index} has no prompt or no completion")
        first = len(ids) + len(row.prompt) - 1  # the last prompt token predicts the first completion token
        ids += [*row.prompt, *row.completion]
        positions += range(len(row))
        at += range(first, first + len(row.completion))
        targets += row.completion
        owner += [index] * len(row.completion)

    def tensor(values: list[int]) -> Any:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Pack(
        tensor(ids)[None], tensor(positions)[None], tensor(at), tensor(targets), tensor(owner), tuple(map(len, rows))
    )


def token_nll(model: Any, packed: Pack) -> Any:
    """Negative log-likelihood of each supervised token, nats, fp32 (S,). Differentiable."""
    import torch

    logits = model(
        input_ids=packed.ids,
        position_ids=packed.positions,
        use_cache=False,  # with a cache the packed rows would see each other
        logits_to_keep=packed.at,
        **row_lengths(model, packed.lengths),
    ).logits[0]  # (S, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), packed.targets, reduction="none")


def token_log_probabilities(model: Any, packed: Pack) -> Any:
    """Log-probabilities of the next token at every position, fp32 (T, vocabulary). Differentiable."""
    import torch

    more = row_lengths(model, packed.lengths)
    logits = model(input_ids=packed.ids, position_ids=packed.positions, use_cache=False, **more).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def bins(lengths: Iterable[int], max_tokens: int) -> list[list[int]]:
    """Indices grouped so that each group's lengths sum to at most `max_tokens` (or it holds one row), in order."""
    groups: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if not groups or length > room:
            groups.append([])
            room = max_tokens
        groups[-1].append(index)
        room -= length
    return groups
