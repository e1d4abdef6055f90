"""Log-likelihoods of many answers to many prompts, with every shared token computed once.

Prompts that begin alike share that beginning, and the answers to one prompt (the choices of a question) share the
prompt: a pack is a tree of segments in one sequence, in which a token sees its ancestors and what stands before it in
its own segment. Positions go on from the parent's end, so each answer reads as if it stood alone behind its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models.loading import using_adapter
from models.packing import bins
from models.prompts import completion_ids, prompt_ids

PACK_TOKENS = 512
"""Tokens of one pack for every 8 rows of `batch`; attention and its mask grow with the square."""
_MIN_PREFIX = 8
"""A shorter common beginning is not worth a segment of its own."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A run of tokens behind `parent` (its place in the list of segments; -1 is the beginning)."""

    tokens: Tokens
    parent: int


@dataclass(frozen=True)
class Tree:
    """Segments as one sequence of T tokens.

    `ids`, `positions` (1, T); `mask` (1, 1, T, T), True where a row's token sees a column's; `ends`: place behind each
    segment's last token.
    """

    ids: Any
    positions: Any
    mask: Any
    ends: tuple[int, ...]


def common_prefix(prompts: Sequence[list[int]] | Sequence[Tokens]) -> int:
    """Tokens that all prompts begin with; every prompt keeps one of its own. 0 if it is not worth sharing."""
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # the two furthest apart in order share what all share
    longest = min(len(p) for p in prompts) - 1
    count = 0
    while count < longest and first[count] == last[count]:
        count += 1
    return count if count >= _MIN_PREFIX and len(prompts) > 1 else 0


def tree(segments: Sequence[Segment], device: Any = "cpu") -> Tree:
    """Lay segments out in their order; a parent stands before its children."""
    import torch

    sees = torch.zeros(len(segments), len(segments), dtype=torch.bool)
    ids: list[int] = []
    positions: list[int] = []
    owner: list[int] = []
    depth: list[int] = []  # tokens from the beginning up to each segment's end
    ends: list[int] = []
    for index, segment in enumerate(segments):
        start = 0
        if segment.parent >= 0:
            sees[index] |= sees[segment.parent]
            start = depth[segment.parent]
        sees[index, index] = True
        ids += segment.tokens
        positions += range(start, start + len(segment.tokens))
        owner += [index] * len(segment.tokens)
        depth.append(start + len(segment.tokens))
        ends.append(len(ids))
    of = torch.tensor(owner)
    mask = sees[of][:, of].tril()
    return Tree(
        torch.tensor(ids, device=device)[None],
        torch.tensor(positions, device=device)[None],
        mask[None, None].to(device),
        tuple(ends),
    )


def _segments(
    prompts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], shared: int
) -> tuple[list[Segment], list[int], list[int]]:
    """(segments, place of each prompt's segment, place of each answer's), answers without their last token.

    An answer of one token needs no segment: its prompt's last token predicts it. It has the place -1.
    """
    segments = [Segment(prompts[0][:shared], -1)] if shared else []
    root = len(segments) - 1
    of_prompt: list[int] = []
    of_answer: list[int] = []
    for prompt, several in zip(prompts, answers, strict=True):
        of_prompt.append(len(segments))
        segments.append(Segment(prompt[shared:], root))
        for answer in several:
            of_answer.append(len(segments) if len(answer) > 1 else -1)
            if len(answer) > 1:
                segments.append(Segment(answer[:-1], of_prompt[-1]))
    return segments, of_prompt, of_answer


def _score(model: Any, prompts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], shared: int) -> list[float]:
    """Summed negative log-likelihood of every answer, nats, in order."""
    import torch

    segments, of_prompt, of_answer = _segments(prompts, answers, shared)
    laid = tree(segments, model.device)
    at: list[int] = []  # the position that predicts each supervised token
    targets: list[int] = []
    owner: list[int] = []
    number = 0
    for place, several in zip(of_prompt, answers, strict=True):
        for answer in several:
            own = of_answer[number]
            end = laid.ends[own] if own >= 0 else 0
            at += [laid.ends[place] - 1, *range(end - (len(answer) - 1), end)][: len(answer)]
            targets += answer
            owner += [number] * len(answer)
            number += 1
    kept, where = torch.unique(torch.tensor(at, device=model.device), return_inverse=True)
    logits = model(
        input_ids=laid.ids,
        position_ids=laid.positions,
        attention_mask=laid.mask,
        use_cache=False,
        logits_to_keep=kept,
    ).logits[0]  # (kept, vocabulary)
    wanted = torch.tensor(targets, device=model.device)
    nll = torch.logsumexp(logits.float(), dim=-1)[where] - logits[where, wanted].float()
    sums = nll.new_zeros(number).index_add_(0, torch.tensor(owner, device=model.device), nll)
    return [float(value) for value in sums.tolist()]


def token_nlls(
    model: Any, prompts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], *, max_tokens: int
) -> list[list[float]]:
    """Summed negative log-likelihood of each answer to each prompt, nats.

    Args:
        model: in eval mode, with the adapter wanted already switched on.
        prompts: token ids, none empty.
        answers: for each prompt its answers, token ids, none empty.
        max_tokens: of one pack; a prompt whose answers are longer has a pack of its own.
    """
    import torch

    shared = common_prefix(prompts) if prompts else 0
    sizes = [len(p) - shared + sum(len(a) - 1 for a in several) for p, several in zip(prompts, answers, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: sizes[i])
    found: list[list[float]] = [[] for _ in prompts]
    with torch.inference_mode():
        for group in bins((sizes[i] for i in order), max(1, max_tokens - shared)):
            picked = [order[g] for g in group]
            values = iter(_score(model, [prompts[i] for i in picked], [answers[i] for i in picked], shared))
            for i in picked:
                found[i] = [next(values) for _ in answers[i]]
    return found


def reference_nll(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Any]],
    references: Sequence[str],
    *,
    batch: int = 8,
    adapter: str | None = None,
) -> list[float]:
    """Mean negative log-likelihood of each reference answer and its end of turn, nats per token.

    Equal conversations (the choices of one question) are computed once.

    Args:
        references: one answer for each conversation.
        batch: about this many rows are packed into one pass (no padding).

    Returns:
        One value per conversation, in order.
    """
    asked: dict[Tokens, list[int]] = {}
    for index, messages in enumerate(conversations):
        asked.setdefault(tuple(prompt_ids(tokenizer, messages)), []).append(index)
    completions = [tuple(completion_ids(tokenizer, reference)) for reference in references]
    if len(completions) != len(conversations):
        raise ValueError(f"{len(completions)} references for {len(conversations)} conversations")
    with using_adapter(model, adapter):
        sums = token_nlls(
            model,
            list(asked),
            [[completions[i] for i in places] for places in asked.values()],
            max_tokens=PACK_TOKENS * max(1, batch // 8),
        )
    values = [0.0] * len(completions)
    for places, several in zip(asked.values(), sums, strict=True):
        for place, total in zip(places, several, strict=True):
            values[place] = total / len(completions[place])
    return values
