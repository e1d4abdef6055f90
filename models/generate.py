"""Answers in batches, greedy or sampled: what evaluation and replay share.

Rows of like length go together, a prefix all prompts share (the system prompt) is computed once, rows that have ended
leave the batch, and a reference answer is scored behind the prompt that is about to be answered.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import EvaluationError
from models.likelihood import common_prefix
from models.loading import using_adapter
from models.prompts import completion_ids, prompt_ids, stop_ids

Progress = Callable[[int, int], None]


@dataclass
class _Batch:
    """Rows being decoded. `index` (B) their places in the answer list; `mask` (B, P + T so far).

    Without `samplers` it is greedy.
    """

    index: list[int]
    left: list[int]
    cache: Any
    mask: Any
    position: Any
    token: Any
    samplers: list[Any]

    def choose(self, logits: Any) -> None:
        """Take each row's next token from its logits (B, vocabulary)."""
        import torch

        from models.sampling import next_tokens

        best = _likeliest(logits)
        self.token = torch.tensor(next_tokens(logits, self.samplers), device=logits.device) if self.samplers else best


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
    """Prefill rows behind the shared prefix, padded on the left; returns (cache, mask, next position (B, 1), logits of
    the next token (B, vocabulary))."""
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
    return cache, mask, positions[:, -1:] + 1, out.logits[:, -1]


def _nll_of(model: Any, begun: tuple[Any, Any, Any, Any], references: Sequence[Sequence[int]]) -> list[float | None]:
    """Mean negative log-likelihood of each row's reference behind its prompt; None of an empty one.

    The cache is as before afterwards.
    """
    import torch

    cache, mask, position, logits = begun
    if not any(references):
        return [None] * len(references)
    width = max(max(len(r) for r in references) - 1, 0)
    targets = torch.tensor([[*r, *[0] * (width + 1 - len(r))] for r in references], device=mask.device)  # (B, W + 1)
    known = torch.tensor([[1] * len(r) + [0] * (width + 1 - len(r)) for r in references], device=mask.device)
    steps = [logits[:, None]]
    if width:
        out = model(
            input_ids=targets[:, :-1],
            attention_mask=torch.cat([mask, known[:, :-1].to(mask.dtype)], dim=1),
            position_ids=position + torch.arange(width, device=mask.device),
            past_key_values=cache,
            use_cache=True,
        )
        cache.crop(-width)
        steps.append(out.logits)
    every = torch.cat(steps, dim=1).float()  # (B, W + 1, vocabulary)
    nll = torch.logsumexp(every, dim=-1) - every.gather(-1, targets[..., None])[..., 0]
    sums = (nll * known).sum(1).tolist()
    return [total / len(r) if r else None for total, r in zip(sums, references, strict=True)]


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
            rows.samplers = [rows.samplers[s] for s in kept] if rows.samplers else []
        rows.mask = torch.cat([rows.mask, rows.mask.new_ones(len(kept), 1)], dim=1)
        out = model(
            input_ids=rows.token[:, None],
            attention_mask=rows.mask,
            position_ids=rows.position,
            past_key_values=rows.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        rows.choose(out.logits[:, -1])
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
    answers, _ = answer_and_score(
        model,
        tokenizer,
        conversations,
        [None] * len(conversations),
        max_new_tokens=max_new_tokens,
        batch=batch,
        adapter=adapter,
        progress=progress,
    )
    return answers


def answer_and_score(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Sequence[Any]],
    references: Sequence[str | None],
    *,
    max_new_tokens: int | Sequence[int],
    batch: int = 8,
    adapter: str | None = None,
    samplers: Sequence[Any] = (),
    progress: Progress | None = None,
) -> tuple[list[str], list[float | None]]:
    """Answer conversations, and say how likely a reference answer was; each prompt is computed once.

    Args:
        references: one for each conversation; None is not scored. The others as of `generate`.
        samplers: one `models.sampling.Sampler` for each conversation; none: greedy.

    Returns:
        (answers as of `generate`, mean negative log-likelihood of each reference and its end of turn, nats per token).
    """
    import torch

    count = len(conversations)
    limits = [max_new_tokens] * count if isinstance(max_new_tokens, int) else list(max_new_tokens)
    if len(limits) != count or len(references) != count:
        raise ValueError(f"{len(limits)} limits and {len(references)} references for {count} conversations")
    if len(samplers) not in (0, count):
        raise ValueError(f"{len(samplers)} samplers for {count} conversations")
    if not conversations:
        return [], []
    prompts = [prompt_ids(tokenizer, messages) for messages in conversations]
    wanted = [[] if text is None else completion_ids(tokenizer, text) for text in references]
    stops = stop_ids(model, tokenizer)
    answers: list[list[int]] = [[] for _ in prompts]
    values: list[float | None] = [None] * count
    order = sorted(range(count), key=lambda i: (len(prompts[i]), limits[i], i))
    done = 0
    with torch.inference_mode(), using_adapter(model, adapter):
        shared = common_prefix(prompts)
        prefix_cache = _prefill_prefix(model, prompts[0][:shared])
        for start in range(0, count, batch):
            picked = order[start : start + batch]
            begun = _start(model, [prompts[i] for i in picked], shared, prefix_cache, tokenizer.pad_token_id)
            for i, value in zip(picked, _nll_of(model, begun, [wanted[i] for i in picked]), strict=True):
                values[i] = value
            cache, mask, position, logits = begun
            own = [samplers[i] for i in picked] if samplers else []
            rows = _Batch(picked, [limits[i] for i in picked], cache, mask, position, None, own)
            rows.choose(logits)
            _decode(model, rows, stops, answers)
            done += len(picked)
            if progress is not None:
                progress(done, count)
    return [text.strip() for text in tokenizer.batch_decode(answers, skip_special_tokens=True)], values
