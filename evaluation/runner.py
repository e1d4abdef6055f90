"""One loaded base, adapters switched: base, champion, candidate (and best accepted version) on the same items.

Models are told apart by digest: a champion that is the base is asked once. Nothing is loaded when every answer is
already in the cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from configs.errors import EvaluationError
from data_contracts.records import AdapterRef, EvalItem, EvalReport, ItemScore, SuiteScores
from evaluation import scoring
from evaluation.answers import AnswerCache, Output
from evaluation.patterns import search_all
from evaluation.suites import item_digest, lint, suite_digest

Role = Literal["base", "champion", "best", "candidate"]
ROLES: tuple[Role, ...] = ("base", "champion", "candidate")
"""Models without which there is no comparison; `best` (the best accepted version) is compared where it is given."""
Event = Callable[[dict[str, Any]], None]
_CHUNK_BATCHES = 4


class _Models:
    """The base and its adapters, loaded when first needed."""

    def __init__(self, base_path: Path, base_digest: str, max_rank: int) -> None:
        self._base_path, self._base_digest, self._max_rank = base_path, base_digest, max_rank
        self._model: Any = None
        self._tokenizer: Any = None
        self._loaded: set[str] = set()

    def use(self, ref: AdapterRef | None) -> tuple[Any, Any, str | None]:
        """(model, tokenizer, adapter name) for `answer_and_score` and `reference_nll`.

        Raises:
            AdapterRejectedError: files, digest, base, rank or values did not pass the checks.
        """
        from models.loading import attach, load_adapter, load_base

        if self._model is None:
            self._model, self._tokenizer = load_base(self._base_path)
        if ref is None:
            return self._model, self._tokenizer, None
        named = ref.model_copy(update={"version": f"a{ref.digest[:24]}"})
        if named.version not in self._loaded:
            if self._loaded:
                load_adapter(self._model, named, max_rank=self._max_rank, base_digest=self._base_digest)
            else:
                self._model = attach(self._model, named, max_rank=self._max_rank, base_digest=self._base_digest)
            self._loaded.add(named.version)
        return self._model, self._tokenizer, named.version


def _ask(model: Any, tokenizer: Any, adapter: str | None, items: Sequence[EvalItem], batch: int) -> list[Output]:
    """Outputs for items, in order: answers for all but `choice`, likelihoods for whatever has a reference answer."""
    from models.generate import answer_and_score
    from models.likelihood import reference_nll

    spoken = [i for i, item in enumerate(items) if item.scorer != "choice"]
    answers, likelihoods = answer_and_score(
        model,
        tokenizer,
        [items[i].messages for i in spoken],
        [items[i].reference if items[i].scorer in ("exact", "contains") else None for i in spoken],
        max_new_tokens=[items[i].max_new_tokens for i in spoken],
        batch=batch,
        adapter=adapter,
    )
    outputs = {
        i: Output(answer=answer, nll=None if nll is None else _finite(nll, items[i]))
        for i, answer, nll in zip(spoken, answers, likelihoods, strict=True)
    }
    chosen = [i for i, item in enumerate(items) if item.scorer == "choice"]
    values = iter(
        reference_nll(
            model,
            tokenizer,
            [items[i].messages for i in chosen for _ in items[i].choices],
            [choice for i in chosen for choice in items[i].choices],
            batch=batch,
            adapter=adapter,
        )
    )
    for i in chosen:
        item = items[i]
        nlls = tuple(_finite(next(values), item) for _ in item.choices)
        answer = item.choices[scoring.best_choice(nlls, item.id)]
        outputs[i] = Output(answer=answer, nll=nlls[item.choices.index(item.reference)], choice_nlls=nlls)
    return [outputs[i] for i in range(len(items))]


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
    best_suites: Collection[str] = (),
) -> EvalReport:
    """Ask every model every item and score the answers.

    Args:
        base_path: folder of the base model's files; `base_digest` its digest.
        models: base, champion and candidate, and `best` if there is one; None is the base itself.
        suites: name -> items. A suite without items is left out of the report.
        batch: rows decoded together.
        cache_dir: where answers are kept (`evaluation/answers.py`).
        progress: called with {"event": "progress", "model", "suite", "done", "total", "eta_s"}; `done` and `total`
            count items that are not in the cache. It may raise to stop: finished answers are kept.
        dataset_digest: written into the report.
        best_suites: the suites `best` is asked.

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
    roles: tuple[Role, ...] = (*ROLES, "best") if "best" in models else ROLES
    digests: dict[Role, str] = {
        role: ref.digest if (ref := models[role]) is not None else base_digest for role in roles
    }
    refs = {digests[role]: models[role] for role in roles}
    caches = {model: AnswerCache(cache_dir, model) for model in refs}
    keys = {name: [item_digest(item) for item in items] for name, items in suites.items()}
    todo = [
        (role, name, unasked)
        for role in roles
        if digests[role] not in [digests[r] for r in roles[: roles.index(role)]]
        for name in suites
        if role != "best" or name in best_suites
        if (unasked := _unasked(suites[name], keys[name], caches[digests[role]]))
    ]
    counter = _Progress(sum(len(unasked) for _, _, unasked in todo), progress)
    loaded = _Models(base_path, base_digest, max_rank)
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
        best_digest=digests.get("best", ""),
        dataset_digest=dataset_digest,
        scores={
            name: _score(name, items, keys[name], _asked(digests, name in best_suites), caches)
            for name, items in suites.items()
        },
        slices={name: {item.id: item.slice for item in items if item.slice} for name, items in suites.items()},
        seconds=round(time.monotonic() - started, 3),
    )


def _asked(digests: Mapping[Role, str], best: bool) -> dict[Role, str]:
    """The models a suite is scored for."""
    return {role: model for role, model in digests.items() if best or role != "best"}


def _unasked(items: Sequence[EvalItem], keys: Sequence[str], cache: AnswerCache) -> list[tuple[str, EvalItem]]:
    """Items whose answer is not in the cache, each digest once, longest last."""
    fresh = {key: item for key, item in zip(keys, items, strict=True) if cache.get(key) is None}
    return sorted(fresh.items(), key=lambda pair: sum(len(m.content) for m in pair[1].messages))
