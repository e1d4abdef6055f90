"""Greedy answers and reference likelihoods in batches: what evaluation and replay share.

Rows of like length go together, a prefix all prompts share (the system prompt) is computed once, and rows that have
ended leave the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import EvaluationError
from models.loading import using_adapter
from models.packing import TokenRow, bins, pack, token_nll
from models.prompts import completion_ids, prompt_ids, stop_ids

Progress = Callable[[int, int], None]
_MIN_PREFIX = 8
"""A shorter common prefix is not worth a pass of its own."""
_NLL_TOKENS = 512
"""Tokens packed into one scoring pass per 8 rows of `batch`; attention grows with the square."""


@dataclass
class _Batch:
    """Rows being decoded. `index` (B) their places in the answer list; `mask` (B, P + T so far)."""

    index: list[int]
    left: list[int]
    cache: Any
    mask: Any
    position: Any
    token: Any


def _common_prefix(prompts: list[list[int]]) -> int:
    first, last = min(prompts), max(prompts)  # the two furthest apart in order share what all share
    longest = min(len(p) for p in prompts) - 1  # every row keeps a token of its own to start from
    count = 0
    while count < longest and first[count] == last[count]:
        count += 1
    return count if count >= _MIN_PREFIX and len(prompts) > 1 else 0


def _prefill_prefix(model: Any, prefix: Sequence[int]) -> Any:
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if prefix:
        ids = torch.tensor([list(prefix)], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


def _likeliest(logits: Any) -> Any:
    """(B) the token with the highest logit of (B, V).

    Raises:
        EvaluationError: a logit is NaN, which argmax would take for the highest.
    """
    best = logits.max(-1)
    if best.values.isnan().any():
        raise EvaluationError(
            "a logit is not a number",
            where="generation",
            expected="finite logits",
            found="NaN",
            fix="the weights hold NaN or overflow: train again with a lower learning rate",
        )
    return best.indices


def _start(model: Any, prompts: list[list[int]], shared: int, prefix_cache: Any, pad: int) -> tuple[Any, Any, Any, Any]:
    """Prefill rows behind the shared prefix, padded on the left; returns (cache, mask, next position, next token)."""
    import torch

    rests = [p[shared:] for p in prompts]
    width = max(len(r) for r in rests)
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rests])
    own = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rests])
    mask = torch.cat([torch.ones(len(rests), shared, dtype=own.dtype), own], dim=1).to(model.device)
    positions = (shared + own.cumsum(1) - 1).clamp(min=0).to(model.device)
    cache = copy.deepcopy(prefix_cache)
    if shared:
        cache.batch_repeat_interleave(len(rests))
    out = model(
        input_ids=ids.to(model.device),
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return cache, mask, positions[:, -1:] + 1, _likeliest(out.logits[:, -1])


def _decode(model: Any, rows: _Batch, stops: frozenset[int], answers: list[list[int]]) -> None:
    """Extend `answers` until every row has met a stop token or its limit."""
    import torch

    while True:
        kept = []
        for slot, token in enumerate(rows.token.tolist()):
            place = rows.index[slot]
            if rows.left[slot] > 0 and token not in stops:
                answers[place].append(token)
                rows.left[slot] -= 1
                if rows.left[slot] > 0:
                    kept.append(slot)
        if not kept:
            return
        if len(kept) < len(rows.index):  # the ended rows leave; the weights are read for the others only
            chosen = torch.tensor(kept, device=rows.mask.device)
            rows.cache.batch_select_indices(chosen)
            rows.mask, rows.position, rows.token = rows.mask[chosen], rows.position[chosen], rows.token[chosen]
            rows.index, rows.left = [rows.index[s] for s in kept], [rows.left[s] for s in kept]
        rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(kept), 1)], dim=1)
        out = model(
            input_ids=rows.token[:, None],
            attention_mask=rows.mask,
            position_ids=rows.position,
            past_key_values=rows.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        rows.token = _likeliest(out.logits[:, -1])
        rows.position = rows.position + 1


def generate(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Any]],
    *,
    max_new_tokens: int | Sequence[int],
    batch: int = 8,
    adapter: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Answer conversations greedily.

    Args:
        model: a model of `models.loading` (plain or PeftModel).
        conversations: lists of {"role", "content"} or `Message`; each ends with what the assistant replies to.
        max_new_tokens: one limit, or one for each conversation.
        batch: rows decoded together; 16 to 32 is fastest on a CPU.
        adapter: name of a loaded adapter; None is the base.
        progress: called with (answers finished, all) after each batch.

    Returns:
        Answers in the order of `conversations`, without the end of turn, surrounding white space removed.

    Raises:
        EvaluationError: NaN among the logits.
    """
    import torch

    if not conversations:
        return []
    count = len(conversations)
    limits = [max_new_tokens] * count if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != count:
        raise ValueError(f"{len(limits)} limits for {count} conversations")
    prompts = [prompt_ids(tokenizer, messages) for messages in conversations]
    stops = stop_ids(model, tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(count), key=lambda i: (len(prompts[i]), limits[i], i))
    done = 0
    with torch.inference_mode(), using_adapter(model, adapter):
        shared = _common_prefix(prompts)
        prefix_cache = _prefill_prefix(model, prompts[0][:shared])
        for start in range(0, count, batch):
            picked = order[start : start + batch]
            begun = _start(model, [prompts[i] for i in picked], shared, prefix_cache, tokenizer.pad_token_id)
            cache, mask, position, token = begun
            rows = _Batch(picked, [limits[i] for i in picked], cache, mask, position, token)
            _decode(model, rows, stops, answers)
            done += len(picked)
            if progress is not None:
                progress(done, count)
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)]


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

    Args:
        references: one answer for each conversation.
        batch: about this many rows are packed into one pass (no padding).

    Returns:
        One value per conversation, in order.
    """
    import torch

    rows = [
        TokenRow(tuple(prompt_ids(tokenizer, messages)), tuple(completion_ids(tokenizer, reference)))
        for messages, reference in zip(conversations, references, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    values = [0.0] * len(rows)
    limit = _NLL_TOKENS * max(1, batch // 8)
    with torch.inference_mode(), using_adapter(model, adapter):
        for group in bins((len(rows[i]) for i in order), limit):
            picked = [order[g] for g in group]
            packed = pack([rows[i] for i in picked], model.device)
            losses = token_nll(model, packed)
            sums = torch.zeros(len(picked), device=losses.device).index_add_(0, packed.row, losses)
            for place, total in zip(picked, sums.tolist(), strict=True):
                values[place] = total / len(rows[place].completion)
    return values
