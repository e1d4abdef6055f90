"""A local model is asked for what scorers need: answers, likelihoods, choices."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from configs.errors import EvaluationError
from data_contracts.records import EvalItem
from evaluation.answers import AnswerCache, Output
from evaluation.scorers.choice import best_choice
from evaluation.scorers.registry import scorer

CHUNK_BATCHES = 4
"""Batches after which finished answers are kept and a run may stop."""


def _answered(
    model: Any, tokenizer: Any, adapter: str | None, items: Sequence[EvalItem], batch: int
) -> dict[int, Output]:
    """Generated answers by place, with what they took; the answer's tokens are those of its text encoded again.

    Where the reference is an answer, its likelihood is taken behind the prompt that is about to be answered.
    """
    from models.generate import answer_and_score
    from models.prompts import prompt_ids

    spoken = [i for i, item in enumerate(items) if scorer(item.scorer).asks == "answer"]
    began = time.perf_counter()
    answers, nlls = answer_and_score(
        model,
        tokenizer,
        [items[i].messages for i in spoken],
        [items[i].reference if scorer(items[i].scorer).reference_is_answer else None for i in spoken],
        max_new_tokens=[items[i].max_new_tokens for i in spoken],
        batch=batch,
        adapter=adapter,
    )
    share = round((time.perf_counter() - began) / max(1, len(spoken)), 4)
    return {
        i: Output(
            answer=answer,
            nll=None if nll is None else _finite(nll, items[i]),
            seconds=share,
            prompt_tokens=len(prompt_ids(tokenizer, items[i].messages)),
            answer_tokens=len(tokenizer(answer, add_special_tokens=False)["input_ids"]),
        )
        for i, answer, nll in zip(spoken, answers, nlls, strict=True)
    }


def _likelihoods(
    model: Any, tokenizer: Any, adapter: str | None, items: Sequence[EvalItem], batch: int
) -> dict[int, list[float]]:
    """Nats per token, by place: of each choice, or of the reference of an item that asks for nothing else."""
    from models.likelihood import reference_nll

    asked: list[tuple[int, str]] = []
    for i, item in enumerate(items):
        how = scorer(item.scorer)
        if how.asks == "choices":
            asked += [(i, choice) for choice in item.choices]
        elif how.asks == "likelihood":
            asked.append((i, item.reference))
    nlls: dict[int, list[float]] = {}
    conversations, texts = [items[i].messages for i, _ in asked], [text for _, text in asked]
    values = reference_nll(model, tokenizer, conversations, texts, batch=batch, adapter=adapter)
    for (i, _), value in zip(asked, values, strict=True):
        nlls.setdefault(i, []).append(_finite(value, items[i]))
    return nlls


def _finite(value: float, item: EvalItem) -> float:
    if not math.isfinite(value):
        raise EvaluationError(
            "a log-likelihood is not a number",
            where=f"{item.suite}/{item.id}",
            expected="finite nats per token",
            found=value,
            fix="the weights hold NaN or overflow: train again with a lower learning rate",
        )
    return value


def _refuse_too_long(model: Any, tokenizer: Any, items: Sequence[EvalItem]) -> None:
    """Beyond its context a model answers, but what it says means nothing."""
    from models.prompts import completion_ids, prompt_ids

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not limit:
        return
    for item in items:
        how = scorer(item.scorer)
        told = item.choices if how.asks == "choices" else (item.reference,) if how.reference_is_answer else ()
        longest = max((len(completion_ids(tokenizer, text)) for text in told), default=0)
        if how.asks == "answer":
            longest = max(longest, item.max_new_tokens)
        if (needed := len(prompt_ids(tokenizer, item.messages)) + longest) > limit:
            raise EvaluationError(
                "an item is longer than the model's context",
                where=f"{item.suite}/{item.id}",
                expected=f"at most {limit} tokens with the answer",
                found=needed,
                fix="shorten the prompt, or lower max_new_tokens",
            )


def ask(model: Any, tokenizer: Any, adapter: str | None, items: Sequence[EvalItem], batch: int) -> list[Output]:
    """Outputs for items, in order: what each item's scorer asks for.

    Raises:
        EvaluationError: a logit or a likelihood is not a number, or an item is longer than the model's context.
    """
    _refuse_too_long(model, tokenizer, items)
    nlls = _likelihoods(model, tokenizer, adapter, items, batch)
    outputs = _answered(model, tokenizer, adapter, items, batch)
    for i, item in enumerate(items):
        how = scorer(item.scorer)
        if how.asks == "choices":
            best = best_choice(nlls[i], item.id)
            reference = nlls[i][item.choices.index(item.reference)]
            outputs[i] = Output(answer=item.choices[best], nll=reference, choice_nlls=tuple(nlls[i]))
        elif how.asks == "likelihood":
            outputs[i] = Output(answer="", nll=nlls[i][0])
    return [outputs[i] for i in range(len(items))]


def unasked_items(items: Sequence[EvalItem], keys: Sequence[str], cache: AnswerCache) -> list[tuple[str, EvalItem]]:
    """(digest, item) of items whose answer is not in the cache, each digest once, longest last."""
    fresh = {key: item for key, item in zip(keys, items, strict=True) if cache.get(key) is None}
    return sorted(fresh.items(), key=lambda pair: sum(len(m.content) for m in pair[1].messages))
