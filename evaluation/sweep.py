"""Several strengths of one adapter on the selection half, in one process with one base: `python -m evaluation.sweep`.

The base and the champion are asked once, the adapter's weights are loaded once; what each said is in the answer cache
under its own digest, so a sweep that was killed goes on, and the gate's evaluation asks none of it again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import EvaluationError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef, EvalItem, EvalReport
from evaluation.loaded import LocalModels
from evaluation.runner import Event, Role, run
from evaluation.scorers.base import Tools
from evaluation.tools import tools_of
from models.jobs import Emit, JobStopped, serve_job, write_json


def run_candidates(
    base_path: Path,
    base_digest: str,
    others: Mapping[Role, AdapterRef | None],
    candidates: Mapping[str, AdapterRef],
    suites: Mapping[str, Sequence[EvalItem]],
    *,
    batch: int = 16,
    cache_dir: Path,
    max_rank: int = MAX_RANK,
    progress: Event = lambda _: None,
    tools: Tools | None = None,
    best_suites: Collection[str] = (),
) -> dict[str, EvalReport]:
    """A report of each candidate on the same items, in the order given.

    Args: as of `evaluation.runner.run`, but `others` are its models without the candidate; `progress` events also hold
        `candidate`, its number and how many there are.

    Raises:
        EvaluationError: no candidate, or see `evaluation.runner.run`.
    """
    if not candidates:
        raise EvaluationError("no candidate to compare", where="candidates", expected="at least one adapter")
    loaded = LocalModels(base_path, base_digest, max_rank)
    reports = {}
    for number, (name, ref) in enumerate(candidates.items(), 1):
        place = {"candidate": name, "number": number, "of": len(candidates)}
        models: dict[Role, AdapterRef | None] = {**others, "candidate": ref}
        reports[name] = run(
            base_path,
            base_digest,
            models,
            suites,
            batch=batch,
            cache_dir=cache_dir,
            max_rank=max_rank,
            progress=lambda event, place=place: progress({**event, **place}),  # type: ignore[misc]
            loaded=loaded,
            tools=tools,
            best_suites=best_suites,
        )
    return reports


def sweep(job: dict[str, Any], emit: Emit, stop: threading.Event) -> dict[str, Any]:
    """Run the job of `evaluation.launch.run_sweep`; answers found so far are kept when `stop` is set.

    Raises:
        JobStopped: `stop` was set.
        EvaluationError: the job lacks a key, or see `run_candidates`.
    """

    def progress(event: dict[str, Any]) -> None:
        emit(event)
        if stop.is_set():
            raise JobStopped

    try:
        others: dict[Role, AdapterRef | None] = {
            role: None if ref is None else AdapterRef.model_validate(ref) for role, ref in job["models"].items()
        }
        candidates = {name: AdapterRef.model_validate(ref) for name, ref in job["candidates"].items()}
        suites = {name: [EvalItem.model_validate(item) for item in items] for name, items in job["suites"].items()}
        base_path, base_digest = Path(job["base_path"]), str(job["base_digest"])
        cache_dir, report_path = Path(job["cache_dir"]), Path(job["report_path"])
        batch, max_rank, threads = int(job["batch"]), int(job["max_rank"]), int(job["threads"])
    except KeyError as error:
        raise EvaluationError("the job lacks a key", where="job", expected=error.args[0]) from error
    from models.loading import set_threads

    set_threads(threads)
    reports = run_candidates(
        base_path,
        base_digest,
        others,
        candidates,
        suites,
        batch=batch,
        cache_dir=cache_dir,
        max_rank=max_rank,
        progress=progress,
        tools=tools_of(job),
        best_suites=job.get("best_suites", ()),
    )
    write_json(report_path, {name: report.model_dump(mode="json") for name, report in reports.items()})
    return {"report_path": str(report_path), "seconds": round(sum(r.seconds for r in reports.values()), 3)}


if __name__ == "__main__":
    sys.exit(serve_job(sweep))
