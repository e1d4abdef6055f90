"""One loaded base, adapters switched: base, champion and candidate on the same items.

Models are told apart by digest: a champion that is the base is asked once. Nothing is loaded when every answer is
already in the cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from configs.errors import EvaluationError
from data_contracts.records import AdapterRef, EvalItem, EvalReport, ItemScore, SuiteScores
from evaluation import scoring
from evaluation.answers import AnswerCache, Output
from evaluation.loaded import LocalModels
from evaluation.patterns import search_all
from evaluation.suites import item_digest, lint, suite_digest

Role = Literal["base", "champion", "candidate"]
ROLES: tuple[Role, ...] = ("base", "champion", "candidate")
Event = Callable[[dict[str, Any]], None]
_CHUNK_BATCHES = 4


def _ask(model: Any, tokenizer: Any, adapter: str | None, items: Sequence[EvalItem], batch: int) -> list[Output]:
    """Outputs for items, in order: answers for all but `choice`, likelihoods for whatever has a reference answer."""
    from models.generate import generate, reference_nll

    spoken = [i for i, item in enumerate(items) if item.scorer != "choice"]
    answers = generate(
        model,
        tokenizer,
        [items[i].messages for i in spoken],
        max_new_tokens=[items[i].max_new_tokens for i in spoken],
        batch=batch,
        adapter=adapter,
    )
    answer_of = dict(zip(spoken, answers, strict=True))
    asked: list[tuple[int, str]] = []
    for i, item in enumerate(items):
        if item.scorer == "choice":
            asked += [(i, choice) for choice in item.choices]
        elif item.scorer in ("exact", "contains"):
            asked.append((i, item.reference))
    values: list[float] = []
    if asked:
        conversations, texts = [items[i].messages for i, _ in asked], [text for _, text in asked]
        values = reference_nll(model, tokenizer, conversations, texts, batch=batch, adapter=adapter)
    nlls: dict[int, list[float]] = {}
    for (i, _), value in zip(asked, values, strict=True):
        if not math.isfinite(value):
            raise EvaluationError(
                "a log-likelihood is not a number",
                where=f"{items[i].suite}/{items[i].id}",
                expected="finite nats per token",
                found=value,
                fix="the weights hold NaN or overflow: train again with a lower learning rate",
            )
        nlls.setdefault(i, []).append(value)
    outputs = []
    for i, item in enumerate(items):
        if item.scorer == "choice":
            best = scoring.best_choice(nlls[i], item.id)
            reference = nlls[i][item.choices.index(item.reference)]
            outputs.append(Output(answer=item.choices[best], nll=reference, choice_nlls=tuple(nlls[i])))
        else:
            outputs.append(Output(answer=answer_of[i], nll=nlls[i][0] if i in nlls else None))
    return outputs


def score_outputs(items: Sequence[EvalItem], outputs: Sequence[Output]) -> tuple[ItemScore, ...]:
    """Score raw outputs, in order.

    Raises:
        EvaluationError: a regular expression that takes too long, or a likelihood that is not a number.
    """
    regex = [i for i, item in enumerate(items) if item.scorer == "regex"]
    found = search_all([(f"{items[i].suite}/{items[i].id}", items[i].reference, outputs[i].answer) for i in regex])
    matched = dict(zip(regex, found, strict=True))
    scores = []
    for i, (item, output) in enumerate(zip(items, outputs, strict=True)):
        if item.scorer == "choice":
            value = float(item.choices[scoring.best_choice(output.choice_nlls, item.id)] == item.reference)
        else:
            value = scoring.score_answer(item, output.answer, regex_found=matched.get(i))
        scores.append(ItemScore(item_id=item.id, score=value, answer=output.answer, nll=output.nll))
    return tuple(scores)


class _Progress:
    """Counts items over all models and suites and estimates what is left."""

    def __init__(self, total: int, on_event: Event) -> None:
        self._total, self._on_event, self._done, self._started = total, on_event, 0, time.monotonic()

    def add(self, count: int, role: str, suite: str) -> None:
        self._done += count
        spent = time.monotonic() - self._started
        eta = spent / self._done * (self._total - self._done) if self._done else 0.0
        self._on_event(
            {
                "event": "progress",
                "stage": "evaluation",
                "model": role,
                "suite": suite,
                "done": self._done,
                "total": self._total,
                "eta_s": round(eta, 1),
            }
        )


def _score(
    name: str,
    items: Sequence[EvalItem],
    keys: Sequence[str],
    digests: Mapping[Role, str],
    caches: Mapping[str, AnswerCache],
) -> dict[str, SuiteScores]:
    """Every model's scores on one suite, from the answers in the caches."""
    scores: dict[str, SuiteScores] = {}
    for role, model in digests.items():
        found = [output for key in keys if (output := caches[model].get(key)) is not None]
        scores[role] = SuiteScores(
            suite=name, suite_digest=suite_digest(items), model_digest=model, items=score_outputs(items, found)
        )
    return scores


def run(
    base_path: Path,
    base_digest: str,
    models: Mapping[Role, AdapterRef | None],
    suites: Mapping[str, Sequence[EvalItem]],
    *,
    batch: int = 16,
    cache_dir: Path,
    max_rank: int = 64,
    progress: Event = lambda _: None,
    dataset_digest: str = "",
    loaded: LocalModels | None = None,
) -> EvalReport:
    """Ask every model every item and score the answers.

    Args:
        base_path: folder of the base model's files; `base_digest` its digest.
        models: base, champion and candidate; None is the base itself.
        suites: name -> items. A suite without items is left out of the report.
        batch: rows decoded together.
        cache_dir: where answers are kept (`evaluation/answers.py`).
        progress: called with {"event": "progress", "model", "suite", "done", "total", "eta_s"}; `done` and `total`
            count items that are not in the cache. It may raise to stop: finished answers are kept.
        dataset_digest: written into the report.
        loaded: models of an earlier run of the same base, to go on with; None loads what is needed.

    Raises:
        EvaluationError: a model is missing, a suite does not lint, a likelihood is NaN or a regex explodes.
        AdapterRejectedError: an adapter that must not be loaded.
    """
    missing = [role for role in ROLES if role not in models]
    if missing:
        raise EvaluationError("a model to compare is missing", where="models", expected=", ".join(ROLES), found=missing)
    started = time.monotonic()
    suites = {name: items for name, items in suites.items() if items}
    for name, items in suites.items():
        lint(items, name)
    digests: dict[Role, str] = {
        role: ref.digest if (ref := models[role]) is not None else base_digest for role in ROLES
    }
    refs = {digests[role]: models[role] for role in ROLES}
    caches = {model: AnswerCache(cache_dir, model) for model in refs}
    keys = {name: [item_digest(item) for item in items] for name, items in suites.items()}
    todo = [
        (role, name, unasked)
        for role in ROLES
        if digests[role] not in [digests[r] for r in ROLES[: ROLES.index(role)]]
        for name in suites
        if (unasked := _unasked(suites[name], keys[name], caches[digests[role]]))
    ]
    counter = _Progress(sum(len(unasked) for _, _, unasked in todo), progress)
    loaded = loaded or LocalModels(base_path, base_digest, max_rank)
    for role, name, unasked in todo:
        for start in range(0, len(unasked), _CHUNK_BATCHES * batch):
            chunk = unasked[start : start + _CHUNK_BATCHES * batch]
            outputs = _ask(*loaded.use(refs[digests[role]]), [item for _, item in chunk], batch)
            caches[digests[role]].put(zip([key for key, _ in chunk], outputs, strict=True))
            counter.add(len(chunk), role, name)
    return EvalReport(
        candidate_digest=digests["candidate"],
        champion_digest=digests["champion"],
        base_digest=base_digest,
        dataset_digest=dataset_digest,
        scores={name: _score(name, items, keys[name], digests, caches) for name, items in suites.items()},
        slices={name: {item.id: item.slice for item in items if item.slice} for name, items in suites.items()},
        seconds=round(time.monotonic() - started, 3),
    )


def _unasked(items: Sequence[EvalItem], keys: Sequence[str], cache: AnswerCache) -> list[tuple[str, EvalItem]]:
    """Items whose answer is not in the cache, each digest once, longest last."""
    fresh = {key: item for key, item in zip(keys, items, strict=True) if cache.get(key) is None}
    return sorted(fresh.items(), key=lambda pair: sum(len(m.content) for m in pair[1].messages))
