"""Suites from tasks of lm-evaluation-harness (extra `lm-eval`): its documents and prompts, asked by our runner.

A task becomes items of a file, as any other suite: it is frozen, held against training data, and asked in chats, with
the task's description as system message and its worked examples as turns. `multiple_choice` becomes scorer `choice`;
`generate_until` becomes scorer `lm_eval`, which runs the task's own filters and metric over the answer. Nothing is
fetched unless the caller's environment says so (`HF_HUB_OFFLINE=0`): the documents are local files or in the cache.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from configs.errors import EvaluationError
from data_contracts.digests import digest

KEYS = ("doc", "filter", "metric", "policy", "task", "tasks")
"""What the reference of an item with scorer `lm_eval` holds, as JSON."""
RATE_S = 10.0
"""Longest time for one answer's filters and metric."""
_FIX = "pip install 'tidemill[lm-eval]'"
_NOT_OF_THE_POLICY = ("dataset_path", "dataset_name", "dataset_kwargs", "metadata")


@dataclass
class Imported:
    """Items for `evaluation.suites.parse_item`, and how many documents were left out, by reason."""

    items: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def load_tasks(name: str, folder: Path | None) -> dict[str, Any]:
    """The tasks of a task, group or tag of lm-eval, by name.

    Args:
        folder: of task files (YAML); None looks among those that lm-eval ships.

    Raises:
        EvaluationError: lm-eval is not installed, there is no such task, or it cannot be loaded (for want of its
            documents, most often).
    """
    if folder is not None and not folder.is_dir():
        raise EvaluationError("no such folder of tasks", where=folder, expected="a folder with lm-eval's YAML files")
    for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(variable, "1")
    os.environ.setdefault("HF_DATASETS_OFFLINE", os.environ["HF_HUB_OFFLINE"])
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise EvaluationError("lm-eval is not installed", where=name, found=error, fix=_FIX) from error
    manager = TaskManager(include_path=None if folder is None else str(folder), include_defaults=folder is None)
    if name not in manager.all_tasks:
        known = sorted(manager.all_tasks)
        expected = ", ".join(known) if len(known) <= 20 else f"one of {len(known)} tasks"
        raise EvaluationError("no such task of lm-eval", where=folder or "lm-eval", expected=expected, found=name)
    try:
        found: dict[str, Any] = manager.load([name])["tasks"]
    except Exception as error:  # a task is somebody else's code and data: whatever goes wrong, it cannot be used
        text = " ".join(str(error).split())[:300]
        raise EvaluationError(
            "a task of lm-eval does not load",
            where=name,
            found=f"{type(error).__name__}: {text}",
            fix="give its documents as local files, or fetch them once with HF_HUB_OFFLINE=0",
        ) from error
    return found


def items_of(
    name: str,
    folder: Path | None = None,
    *,
    limit: int | None = None,
    few_shot: int | None = None,
    max_new_tokens: int | None = None,
) -> Imported:
    """A task's documents as items of a suite; each task of a group is a slice.

    Args:
        folder: of task files; None: those shipped with lm-eval.
        limit: documents of each task, the first ones; None: all.
        few_shot: worked examples before each; None: as the task says.
        max_new_tokens: of an answer; None: as the task says (256 where it does not).

    Raises:
        EvaluationError: see `load_tasks`; or a task of a kind that is not understood, and which.
    """
    found = Imported()
    for title, task in load_tasks(name, folder).items():
        _refuse_unknown(title, task)
        task.set_fewshot_seed(0)
        shots = int(task.config.num_fewshot or 0) if few_shot is None else few_shot
        make = _choice_item if task.OUTPUT_TYPE == "multiple_choice" else _answer_item
        place = _Place(title, task, folder, max_new_tokens, _metric(title, task))
        for number, doc in task.doc_iterator(limit=limit):
            item = make(place, doc)
            if isinstance(item, str):
                found.left_out[f"{title}: {item}"] += 1
                continue
            try:
                messages = _messages(task, doc, shots)
            except (AttributeError, IndexError, ValueError) as error:
                raise EvaluationError(
                    "a task's prompt cannot be made",
                    where=f"{title}: document {number}",
                    found=error,
                    fix="does it have enough documents for its worked examples? Try fewer",
                ) from error
            if messages[-1]["role"] != "user" or not messages[-1]["content"].strip():
                found.left_out[f"{title}: its prompt says nothing"] += 1
                continue
            found.items.append({"id": f"{title}-{number}", "messages": messages, "slice": title, **item})
    if not found.items:
        raise EvaluationError("a task without a usable document", where=name, found=dict(found.left_out))
    return found


@dataclass(frozen=True)
class _Place:
    """A task and what its items say of it."""

    title: str
    task: Any
    folder: Path | None
    max_new_tokens: int | None
    metric: str


def _refuse_unknown(name: str, task: Any) -> None:
    problem = ""
    if task.OUTPUT_TYPE not in ("multiple_choice", "generate_until"):
        problem = f"output_type {task.OUTPUT_TYPE}"
    elif getattr(task, "multiple_input", 0):
        problem = "another prompt for each choice"
    elif getattr(task, "MULTIMODAL", False):
        problem = "images or sound"
    elif getattr(task, "UNSAFE_CODE", False):
        problem = "answers that are run as programs"
    elif task.config.gen_prefix:
        problem = "an answer that is begun for the model (gen_prefix)"
    if problem:
        raise EvaluationError(
            "a task of lm-eval cannot become a suite",
            where=name,
            expected="multiple_choice or generate_until, text to text",
            found=problem,
        )


def _messages(task: Any, doc: Mapping[str, Any], few_shot: int) -> list[dict[str, str]]:
    """The chat lm-eval would put into a chat template."""

    def as_it_is(messages: list[dict[str, str]], **_: bool) -> str:
        return json.dumps(messages)

    text = task.fewshot_context(
        doc, few_shot, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=as_it_is
    )
    return [{"role": one["role"], "content": one["content"].strip()} for one in json.loads(text)]


def _choice_item(place: _Place, doc: Mapping[str, Any]) -> dict[str, Any] | str:
    """The item's scoring, or why the document has none."""
    choices = [str(choice).strip() for choice in place.task.doc_to_choice(doc)]
    target = place.task.doc_to_target(doc)
    if isinstance(target, str) and target.strip() in choices:
        target = choices.index(target.strip())
    if not isinstance(target, int) or not 0 <= target < len(choices):
        return "not exactly one right choice"
    if len(set(choices)) != len(choices) or len(choices) < 2 or not all(choices):
        return "empty choices, or two the same"
    return {"scorer": "choice", "choices": choices, "reference": choices[target]}


def _answer_item(place: _Place, doc: Mapping[str, Any]) -> dict[str, Any] | str:
    try:
        text = json.dumps(dict(doc))
    except (TypeError, ValueError):
        return "its document is not text and numbers"
    told = {
        "doc": json.loads(text),
        "filter": place.task._filters[0].name,
        "metric": place.metric,
        "policy": _policy(place.task),
        "task": place.title,
        "tasks": None if place.folder is None else str(place.folder.resolve()),
    }
    tokens = place.max_new_tokens or int((place.task.config.generation_kwargs or {}).get("max_gen_toks", 256))
    reference = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return {"scorer": "lm_eval", "reference": reference, "max_new_tokens": tokens}


def _policy(task: Any) -> str:
    """Digest of how a task scores: the task's settings without where its documents come from."""
    told = {k: v for k, v in task.dump_config().items() if k not in _NOT_OF_THE_POLICY}
    return digest(json.loads(json.dumps(told, default=str)))[:16]


def _metric(name: str, task: Any) -> str:
    """The first metric of a task that makes a number in [0, 1] of one answer; empty for choices."""
    if task.OUTPUT_TYPE == "multiple_choice":
        return ""
    tried: dict[str, object] = {}
    doc = dict(next(iter(task.doc_iterator(limit=1)))[1])
    for metric, better in task.higher_is_better().items():
        try:
            tried[metric] = _rate(task, task._filters[0].name, metric, doc, "none")
        except EvaluationError as error:
            tried[metric] = error.found
            continue
        if better:
            return str(metric)
    raise EvaluationError(
        "a task of lm-eval has no metric for one answer",
        where=name,
        expected="one that gives a number from 0 to 1, more is better",
        found=", ".join(f"{metric}: {value}" for metric, value in tried.items()),
    )


@contextmanager
def _limited(metric: str) -> Iterator[None]:
    """At most RATE_S seconds for somebody else's patterns. Matching looks for signals; only a main thread gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise EvaluationError(
            "a filter or metric of lm-eval takes too long",
            where=metric,
            expected=f"at most {RATE_S:g} s for one answer",
            fix="remove nested repetition such as (a+)+ from the task's patterns",
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, RATE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _rate(task: Any, filter_name: str, metric: str, doc: Mapping[str, Any], answer: str) -> float:
    """What a task's filter and metric make of an answer.

    Raises:
        EvaluationError: no number in [0, 1].
    """
    from lm_eval.api.instance import Instance

    kwargs = task.config.generation_kwargs or {}
    until = kwargs.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        answer = answer.split(stop)[0] if stop else answer
    instance = Instance(request_type="generate_until", doc=dict(doc), arguments=("", kwargs), idx=0, resps=[answer])
    task._instances = [instance]
    with _limited(metric):
        task.apply_filters()
        value = task.process_results(doc, [instance.filtered_resps[filter_name]]).get(metric)
    if isinstance(value, bool | int | float) or hasattr(value, "item"):
        number = float(value)
        if 0.0 <= number <= 1.0:
            return number
    raise EvaluationError(
        "a metric of lm-eval gave no score", where=metric, expected="a number from 0 to 1", found=value
    )


@cache
def _task(name: str, folder: str | None) -> tuple[Any, str]:
    """A task and its policy, loaded once a process."""
    task = load_tasks(name, None if folder is None else Path(folder))[name]
    return task, _policy(task)


def rate_answer(told: Mapping[str, Any], answer: str, where: str) -> float:
    """The score of an answer, by what its item's reference says (`KEYS`).

    Raises:
        EvaluationError: see `load_tasks`; the task scores otherwise than when the suite was made, or gives no score.
    """
    task, policy = _task(told["task"], told["tasks"])
    if policy != told["policy"]:
        raise EvaluationError(
            "a task of lm-eval changed since the suite was made",
            where=f"{where}: {told['task']}",
            expected=told["policy"],
            found=policy,
            fix="make the suite again, or put the task's file (and lm-eval's version) back",
        )
    return _rate(task, told["filter"], told["metric"], told["doc"], answer)
