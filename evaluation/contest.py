"""Any model on any suite: the base, adapters and endpoints, each with or without a system prompt of its own.

    measured = measure(Contestant("base"), suites, Bench(base_path, base_digest, cache_dir))

What a model said is kept by its digest (an endpoint's by address and model name) and the item's, as in the gate's
runner, so that nothing is asked twice. An endpoint can only be asked for answers: items that need likelihoods are left
out for it, which is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_contracts.digests import digest
from data_contracts.records import AdapterRef, EvalItem, Message
from evaluation.answers import AnswerCache, Output
from evaluation.asking import CHUNK_BATCHES, ask, unasked_items
from evaluation.endpoint import Chat
from evaluation.loaded import LocalModels
from evaluation.scorers.base import Score, Tools
from evaluation.scorers.registry import scorer
from evaluation.scoring import missing_error, passed, raw_scores
from evaluation.suites import item_digest, lint

Progress = Callable[[str, int, int], None]
"""Called with the model's name, answers found and all it is asked for."""


@dataclass(frozen=True)
class Prices:
    """Dollars per million tokens, which is micro-dollars per token."""

    prompt: Decimal
    answer: Decimal


@dataclass(frozen=True)
class Contestant:
    """A model and how it is spoken to: the base, unless an adapter or an endpoint is given."""

    name: str
    adapter: AdapterRef | None = None
    endpoint: Chat | None = None
    system: str = ""
    """Put before a conversation that brings no system message of its own, as the gateway does."""
    prices: Prices | None = None


@dataclass
class Bench:
    """Where local models run and answers are kept.

    Args:
        base: gives folder and digest of the base; called only if a local model is asked.
    """

    base: Callable[[], tuple[Path, str]]
    cache_dir: Path
    batch: int = 16
    concurrency: int = 4
    """Requests to an endpoint at a time."""
    progress: Progress = lambda *_: None
    threads: int = 0
    """CPU threads for torch; 0 leaves its choice."""
    _found: tuple[Path, str] | None = field(default=None, init=False)
    _models: LocalModels | None = field(default=None, init=False)

    def digest_of(self, contestant: Contestant) -> str:
        """What a contestant's answers are kept under."""
        if contestant.endpoint is not None:
            return "endpoint-" + digest(["endpoint", contestant.endpoint.name])
        return contestant.adapter.digest if contestant.adapter else self._base()[1]

    def _base(self) -> tuple[Path, str]:
        if self._found is None:
            self._found = self.base()
        return self._found

    def local(self) -> LocalModels:
        """The base and its adapters, one in memory for all contestants."""
        if self._models is None:
            from models.loading import set_threads

            set_threads(self.threads)
            self._models = LocalModels(*self._base())
        return self._models


@dataclass(frozen=True)
class Measured:
    """One contestant on all items; `outputs` and `scores` are None where it could not be asked."""

    contestant: Contestant
    items: tuple[EvalItem, ...]
    outputs: tuple[Output | None, ...]
    scores: tuple[Score | None, ...]

    def missing(self) -> list[tuple[EvalItem, str]]:
        """Items whose score is missing, and why."""
        pairs = zip(self.items, self.scores, strict=True)
        return [(item, score.why) for item, score in pairs if score is not None and score.value is None]

    def check(self) -> Measured:
        """Itself. Raises EvaluationError if a score is missing: there is no verdict without it."""
        if missing := self.missing():
            raise missing_error(missing, len(self.items))
        return self

    def passed(self, place: int) -> float | None:
        """1.0 or 0.0 for an item, None without a score."""
        score = self.scores[place]
        return None if score is None or score.value is None else passed(self.items[place], score.value)


def spoken_to(item: EvalItem, system: str) -> EvalItem:
    """The item as a contestant with this system prompt meets it."""
    if not system or any(m.role == "system" for m in item.messages):
        return item
    return item.model_copy(update={"messages": (Message(role="system", content=system), *item.messages)})


def _can_ask(contestant: Contestant, item: EvalItem) -> bool:
    return contestant.endpoint is None or scorer(item.scorer).asks == "answer"


def _ask_endpoint(chat: Chat, items: Sequence[EvalItem], concurrency: int) -> list[Output]:
    def one(item: EvalItem) -> Output:
        messages: list[Mapping[str, str]] = [{"role": m.role, "content": m.content} for m in item.messages]
        reply = chat.reply(messages, item.max_new_tokens)
        return Output(
            answer=reply.text,
            seconds=round(reply.seconds, 4),
            prompt_tokens=reply.prompt_tokens or None,
            answer_tokens=reply.answer_tokens or None,
        )

    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(one, items))


def answers(contestant: Contestant, items: Sequence[EvalItem], bench: Bench) -> list[Output | None]:
    """What a contestant says, in order; None where it cannot be asked.

    Raises:
        EvaluationError: an endpoint does not answer, or a logit or likelihood is not a number; finished answers are
            kept.
        AdapterRejectedError: an adapter that must not be loaded.
    """
    cache = AnswerCache(bench.cache_dir, bench.digest_of(contestant))
    met = {i: spoken_to(item, contestant.system) for i, item in enumerate(items) if _can_ask(contestant, item)}
    keys = {i: item_digest(item) for i, item in met.items()}
    todo = unasked_items(list(met.values()), list(keys.values()), cache)
    step = CHUNK_BATCHES * bench.batch
    for start in range(0, len(todo), step):
        chunk = todo[start : start + step]
        asked = [item for _, item in chunk]
        if contestant.endpoint is not None:
            found = _ask_endpoint(contestant.endpoint, asked, bench.concurrency)
        else:
            found = ask(*bench.local().use(contestant.adapter), asked, bench.batch)
        cache.put(zip([key for key, _ in chunk], found, strict=True))
        bench.progress(contestant.name, min(start + step, len(todo)), len(todo))
    return [cache.get(keys[i]) if i in keys else None for i in range(len(items))]


def measure(
    contestant: Contestant, suites: Mapping[str, Sequence[EvalItem]], bench: Bench, tools: Tools | None = None
) -> Measured:
    """Ask a contestant every item and score what it says; a score may be missing (see `Measured.check`).

    Raises:
        EvaluationError: a suite does not lint; or see `answers` and `scoring.raw_scores`.
    """
    for name, suite in suites.items():
        lint(suite, name)
    items = tuple(item for suite in suites.values() for item in suite)
    outputs = answers(contestant, items, bench)
    asked = [(i, output) for i, output in enumerate(outputs) if output is not None]
    # The judge reads the conversation the contestant met.
    met = [spoken_to(items[i], contestant.system) for i, _ in asked]
    given = raw_scores(met, [output for _, output in asked], tools or Tools())
    scores: list[Score | None] = [None] * len(items)
    for (i, _), score in zip(asked, given, strict=True):
        scores[i] = score
    return Measured(contestant, items, tuple(outputs), tuple(scores))


def summary(measured: Measured) -> list[dict[str, Any]]:
    """A row for each suite and slice, and one for each suite: items, passed, share, mean score, missing, not asked."""
    places: dict[tuple[str, str], list[int]] = {}
    for i, item in enumerate(measured.items):
        for group in ((item.suite, item.slice), (item.suite, "all")):
            if group[1]:
                places.setdefault(group, []).append(i)
    rows = []
    for (suite, name), mine in sorted(places.items(), key=lambda pair: (pair[0][0], pair[0][1] == "all", pair[0][1])):
        scores = [score for i in mine if (score := measured.scores[i]) is not None]
        values = [score.value for score in scores if score.value is not None]
        good = [p for i in mine if (p := measured.passed(i)) is not None]
        whole = bool(values) and len(values) == len(scores)
        rows.append(
            {
                "suite": suite,
                "slice": name,
                "items": len(mine),
                "passed": sum(map(int, good)),
                "share": round(sum(good) / len(good), 4) if whole else None,
                "mean_score": round(sum(values) / len(values), 4) if whole else None,
                "missing": len(scores) - len(values),
                "not_asked": len(mine) - len(scores),
            }
        )
    return rows
