"""One loaded base, adapters switched: base, champion, candidate (and best accepted version) on the same items.

Models are told apart by digest: a champion that is the base is asked once. Nothing is loaded when every answer is
already in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from configs.errors import EvaluationError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef, EvalItem, EvalReport, SuiteScores
from evaluation.answers import AnswerCache
from evaluation.asking import CHUNK_BATCHES, ask, unasked_items
from evaluation.loaded import LocalModels
from evaluation.scorers.base import Tools
from evaluation.scoring import score_outputs
from evaluation.suites import item_digest, lint, suite_digest

Role = Literal["base", "champion", "best", "candidate"]
ROLES: tuple[Role, ...] = ("base", "champion", "candidate")
"""Models without which there is no comparison; `best` (the best accepted version) is compared where it is given."""
Event = Callable[[dict[str, Any]], None]


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
    tools: Tools,
) -> dict[str, SuiteScores]:
    """Every model's scores on one suite, from the answers in the caches; a model in two roles is scored once."""
    scores: dict[str, SuiteScores] = {}
    by_model: dict[str, SuiteScores] = {}
    for role, model in digests.items():
        if model not in by_model:
            found = [output for key in keys if (output := caches[model].get(key)) is not None]
            scored = score_outputs(items, found, tools)
            by_model[model] = SuiteScores(
                suite=name, suite_digest=suite_digest(items), model_digest=model, items=scored
            )
        scores[role] = by_model[model]
    return scores


def run(
    base_path: Path,
    base_digest: str,
    models: Mapping[Role, AdapterRef | None],
    suites: Mapping[str, Sequence[EvalItem]],
    *,
    batch: int = 16,
    cache_dir: Path,
    max_rank: int = MAX_RANK,
    progress: Event = lambda _: None,
    dataset_digest: str = "",
    best_suites: Collection[str] = (),
    tools: Tools | None = None,
    loaded: LocalModels | None = None,
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
        tools: what scorers may use beside the texts: embeddings, a judge model.
        loaded: models of an earlier run of the same base, to go on with; None loads what is needed.

    Raises:
        EvaluationError: a model is missing, a suite does not lint, a likelihood or logit is NaN, a regex explodes, or a
            score is missing (a judge that is down or answers nonsense).
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
        if (unasked := unasked_items(suites[name], keys[name], caches[digests[role]]))
    ]
    counter = _Progress(sum(len(unasked) for _, _, unasked in todo), progress)
    loaded = loaded or LocalModels(base_path, base_digest, max_rank)
    for role, name, unasked in todo:
        for start in range(0, len(unasked), CHUNK_BATCHES * batch):
            chunk = unasked[start : start + CHUNK_BATCHES * batch]
            outputs = ask(*loaded.use(refs[digests[role]]), [item for _, item in chunk], batch)
            caches[digests[role]].put(zip([key for key, _ in chunk], outputs, strict=True))
            counter.add(len(chunk), role, name)
    return EvalReport(
        candidate_digest=digests["candidate"],
        champion_digest=digests["champion"],
        base_digest=base_digest,
        best_digest=digests.get("best", ""),
        dataset_digest=dataset_digest,
        scores={
            name: _score(name, items, keys[name], _asked(digests, name in best_suites), caches, tools or Tools())
            for name, items in suites.items()
        },
        slices={name: {item.id: item.slice for item in items if item.slice} for name, items in suites.items()},
        seconds=round(time.monotonic() - started, 3),
    )


def _asked(digests: Mapping[Role, str], best: bool) -> dict[Role, str]:
    """The models a suite is scored for."""
    return {role: model for role, model in digests.items() if best or role != "best"}
