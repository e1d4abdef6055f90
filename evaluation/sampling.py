"""Several answers to each item at the temperature that is served, beside the greedy one.

A greedy answer is one path; people get samples. Each item is answered k times with seeds of its own, so a model is
asked once and for all, and the mean over items has an interval by resampling items, never single answers: the k answers
to an item are not independent (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 8).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import EvaluationError
from data_contracts.digests import digest
from data_contracts.records import AdapterRef, EvalItem, EvalReport, SampledScores
from evaluation.answers import AnswerCache, Output
from evaluation.loaded import LocalModels
from evaluation.scorers.base import Tools
from evaluation.scorers.registry import scorer
from evaluation.scoring import score_outputs
from evaluation.suites import item_digest

RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A mean over items and its two-sided percentile interval."""

    mean: float
    lower: float
    upper: float


def sampled_decoding(temperature: float, seed: int) -> str:
    """Digest of how sampled answers are decoded; the cache keeps them apart from the greedy ones by it."""
    return digest({"decoding": "sampled", "temperature": temperature, "top_p": 1.0, "seed": seed, "version": 1})


def draw_key(item: EvalItem, draw: int) -> str:
    """The cache's key of the `draw`-th answer to an item."""
    return digest([item_digest(item), draw])


def sample_answers(
    ask: Callable[[], tuple[Any, Any, str | None]],
    items: Sequence[EvalItem],
    *,
    k: int,
    temperature: float,
    seed: int,
    batch: int,
    cache: AnswerCache,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[tuple[str, ...]]:
    """k answers to each item, in order; answers in the cache are not asked again.

    Args:
        ask: gives (model, tokenizer, adapter name) when a model is needed for the first time.
        items: of scorers that judge an answer.
        k: answers to each item.
        temperature: above 0.
        seed: decides the samples, together with the item and the number of the answer.
        batch: rows decoded together.
        cache: made with `sampled_decoding(temperature, seed)`.
        progress: called with (asked, all to ask) after each batch.

    Raises:
        EvaluationError: a temperature of 0, or an item without an answer of its own.
    """
    from models.generate import answer_and_score
    from models.sampling import Sampler

    if temperature <= 0 or k < 1:
        raise EvaluationError("nothing to sample", expected="k of 1 and a temperature above 0", found=(k, temperature))
    for item in items:
        if scorer(item.scorer).asks != "answer":
            raise EvaluationError(f"an item of scorer `{item.scorer}` has no answer to sample", where=item.id)
    wanted = [(draw_key(item, draw), item) for item in items for draw in range(k)]
    fresh = dict(pair for pair in wanted if cache.get(pair[0]) is None)
    todo = sorted(fresh.items(), key=lambda pair: (sum(len(m.content) for m in pair[1].messages), pair[0]))
    for start in range(0, len(todo), batch):
        chunk = todo[start : start + batch]
        model, tokenizer, adapter = ask()
        answers, _ = answer_and_score(
            model,
            tokenizer,
            [item.messages for _, item in chunk],
            [None] * len(chunk),
            max_new_tokens=[item.max_new_tokens for _, item in chunk],
            batch=batch,
            adapter=adapter,
            # From the key, so that a sample does not depend on which others are asked beside it.
            samplers=[Sampler.of(temperature, 1.0, int(digest([key, seed])[:15], 16)) for key, _ in chunk],
        )
        cache.put((key, Output(answer=answer)) for (key, _), answer in zip(chunk, answers, strict=True))
        progress(start + len(chunk), len(todo))
    said = {key: output.answer for key, _ in wanted if (output := cache.get(key)) is not None}
    return [tuple(said[draw_key(item, draw)] for draw in range(k)) for item in items]


def bootstrap(values: Sequence[float], *, alpha: float = 0.05, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """Mean of one value per item and its percentile interval at level 1 - alpha, items drawn with replacement.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("a mean needs a value")
    rng, n = random.Random(seed), len(values)
    means = sorted(sum(rng.choices(values, k=n)) / n for _ in range(resamples))
    low = means[int(alpha / 2 * resamples)]
    high = means[min(resamples - 1, int((1 - alpha / 2) * resamples))]
    return Interval(sum(values) / n, low, high)


def compare_samples(
    reference: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]], *, alpha: float = 0.05, seed: int = 0
) -> tuple[Interval, float]:
    """(mean change candidate - reference over items with its interval, share of items the candidate is unsure of).

    Args:
        reference: for each item the scores of its k answers, in [0, 1].
        candidate: the same of the candidate; an item is unsure if its k scores differ.
    """
    pairs = [(sum(a) / len(a), sum(b) / len(b)) for a, b in zip(reference, candidate, strict=True)]
    unsure = sum(len(set(scores)) > 1 for scores in candidate) / len(candidate)
    return bootstrap([b - a for a, b in pairs], alpha=alpha, seed=seed), unsure


def with_samples(
    report: EvalReport,
    models: Mapping[str, AdapterRef | None],
    suites: Mapping[str, Sequence[EvalItem]],
    loaded: LocalModels,
    *,
    k: int,
    temperature: float,
    batch: int,
    cache_dir: Path,
    tools: Tools,
    seed: int = 0,
    progress: Callable[[dict[str, Any]], None] = lambda _: None,
) -> EvalReport:
    """The report with k sampled answers an item by champion and candidate, suite by suite.

    Args:
        models: `champion` and `candidate`; None is the base.
        suites: those to sample; items without an answer of their own are left out.
        loaded: the models of the run behind the report.
        progress: called with events like those of `evaluation.runner.run`.
    """
    digests = {"champion": report.champion_digest, "candidate": report.candidate_digest}
    decoding = sampled_decoding(temperature, seed)
    found: dict[str, SampledScores] = {}
    for name, all_items in suites.items():
        items = [item for item in all_items if scorer(item.scorer).asks == "answer"]
        if not items:
            continue
        scores: dict[str, list[tuple[float, ...]]] = {}
        for role, model in digests.items():

            def show(done: int, total: int, role: str = role, name: str = name) -> None:
                stage = {"event": "progress", "stage": "evaluation", "model": role, "suite": f"{name}, sampled"}
                progress({**stage, "done": done, "total": total, "eta_s": 0.0})

            ref = models[role]
            said = sample_answers(
                lambda ref=ref: loaded.use(ref),  # type: ignore[misc]
                items,
                k=k,
                temperature=temperature,
                seed=seed,
                batch=batch,
                cache=AnswerCache(cache_dir, model, decoding),
                progress=show,
            )
            flat = [Output(answer=answer) for answers in said for answer in answers]
            given = score_outputs([item for item in items for _ in range(k)], flat, tools)
            scores[role] = [tuple(s.score for s in given[i * k : (i + 1) * k]) for i in range(len(items))]
        change, unsure = compare_samples(scores["champion"], scores["candidate"])
        means = {role: sum(map(sum, rows)) / (k * len(items)) for role, rows in scores.items()}
        found[name] = SampledScores(
            k=k,
            temperature=temperature,
            n=len(items),
            champion_mean=means["champion"],
            candidate_mean=means["candidate"],
            difference=change.mean,
            lower=change.lower,
            upper=change.upper,
            unsure=unsure,
        )
    return report.model_copy(update={"sampled": found})
