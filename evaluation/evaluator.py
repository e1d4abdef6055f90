"""`python -m evaluation.evaluator --job JOB.json`: the evaluation's process. See `evaluation/launch.py` for the job."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from configs.errors import EvaluationError
from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef, EvalItem, JudgeUsage
from evaluation.loaded import LocalModels
from evaluation.runner import run
from evaluation.sampling import with_samples
from evaluation.tools import tools_of
from models.jobs import Emit, Event, JobStopped, serve_job, write_json


def evaluate(job: dict[str, Any], emit: Emit, stop: threading.Event) -> Event:
    """Run the job; answers found so far are kept when `stop` is set.

    Raises:
        JobStopped: `stop` was set.
        EvaluationError: the job lacks a key, or see `evaluation.runner.run`.
    """

    def progress(event: Event) -> None:
        emit(event)
        if stop.is_set():
            raise JobStopped

    try:
        models: dict[Any, AdapterRef | None] = {
            role: None if ref is None else AdapterRef.model_validate(ref) for role, ref in job["models"].items()
        }
        suites = {name: [EvalItem.model_validate(item) for item in items] for name, items in job["suites"].items()}
        base_path, base_digest = Path(job["base_path"]), str(job["base_digest"])
        cache_dir, report_path = Path(job["cache_dir"]), Path(job["report_path"])
    except KeyError as error:
        raise EvaluationError("the job lacks a key", where="job", expected=error.args[0]) from error
    from models.loading import set_threads

    set_threads(int(job.get("threads") or 0))
    tools = tools_of(job)
    loaded = LocalModels(base_path, base_digest, int(job.get("max_rank", MAX_RANK)))
    report = run(
        base_path,
        base_digest,
        models,
        suites,
        batch=int(job.get("batch", 16)),
        cache_dir=cache_dir,
        max_rank=int(job.get("max_rank", MAX_RANK)),
        progress=progress,
        dataset_digest=str(job.get("dataset_digest", "")),
        best_suites=job.get("best_suites", ()),
        tools=tools,
        loaded=loaded,
    )
    if job.get("samples"):
        report = with_samples(
            report,
            models,
            {name: items for name, items in suites.items() if name in job["sampled_suites"]},
            loaded,
            k=int(job["samples"]),
            temperature=float(job["sample_temperature"]),
            batch=int(job.get("batch", 16)),
            cache_dir=cache_dir,
            tools=tools,
            progress=progress,
        )
    if tools.judge is not None:
        used = JudgeUsage(**tools.judge.use.as_dict(tools.judge.settings))
        report = report.model_copy(update={"judge": used if used.requests + used.kept else None})
    write_json(report_path, report.model_dump(mode="json"))
    return {"report_path": str(report_path), "seconds": report.seconds}


if __name__ == "__main__":
    sys.exit(serve_job(evaluate))
