"""Evaluation in a process of its own: the memory of three models goes when it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.errors import EvaluationError
from configs.limits import MAX_RANK
from configs.schema import JudgeSection
from data_contracts.records import AdapterRef, EvalItem, EvalReport
from evaluation.runner import Role


def evaluation_job(
    *,
    base_path: Path,
    base_digest: str,
    models: Mapping[Role, AdapterRef | None],
    suites: Mapping[str, Sequence[EvalItem]],
    cache_dir: Path,
    batch: int = 16,
    max_rank: int = MAX_RANK,
    dataset_digest: str = "",
    threads: int = 0,
    best_suites: Collection[str] = (),
    embedder: Path | None = None,
    judge: JudgeSection | None = None,
    samples: int = 0,
    sample_temperature: float = 0.7,
    sampled_suites: Collection[str] = (),
) -> dict[str, Any]:
    """The job of `evaluation.evaluator`, JSON-ready; arguments as of `evaluation.runner.run`.

    Args:
        embedder: folder of the embedding model, for suites with scorer `similarity`.
        judge: for suites with scorer `rubric`; its key is read from the environment by the child.
        samples: answers to each item of `sampled_suites` at `sample_temperature`, beside the greedy one; 0: none.
    """
    return {
        "base_path": str(base_path),
        "base_digest": base_digest,
        "models": {role: None if ref is None else ref.model_dump(mode="json") for role, ref in models.items()},
        "suites": {name: [item.model_dump(mode="json") for item in items] for name, items in suites.items()},
        "cache_dir": str(cache_dir),
        "batch": batch,
        "max_rank": max_rank,
        "dataset_digest": dataset_digest,
        "threads": threads,
        "best_suites": sorted(best_suites),
        "embedder": None if embedder is None else str(embedder),
        "judge": None if judge is None else judge.model_dump(mode="json"),
        "samples": samples,
        "sample_temperature": sample_temperature,
        "sampled_suites": sorted(sampled_suites),
    }


def run_evaluation(job: Mapping[str, Any], work_dir: Path, on_event: Callable[[dict[str, Any]], None]) -> EvalReport:
    """Run a job to its end in a child process and read its report.

    Args:
        job: from `evaluation_job`.
        work_dir: holds the job, the log and `eval_report.json`.
        on_event: called with every progress event and the final one.

    Raises:
        EvaluationError: a missing or untrustworthy score, or a child that ended without a report.
        AdapterRejectedError: an adapter that must not be loaded.
    """
    from models.jobs import run_job

    final = run_job(
        "evaluation.evaluator", {**job, "report_path": str(work_dir / "eval_report.json")}, work_dir, on_event
    )
    path = Path(str(final.get("report_path")))
    if not path.is_file():
        raise EvaluationError("the evaluation left no report", where=path, fix="run it again: answers are cached")
    return EvalReport.model_validate_json(path.read_bytes())


def run_sweep(
    job: Mapping[str, Any],
    candidates: Mapping[str, AdapterRef],
    work_dir: Path,
    on_event: Callable[[dict[str, Any]], None],
) -> dict[str, EvalReport]:
    """A report of each candidate on the same items, from one child process.

    Args:
        job: from `evaluation_job`, with `base` and `champion` among its models; its suites are the selection half.
        candidates: name -> adapter.
        work_dir: holds the job, the log and `sweep_reports.json`.
        on_event: called with every progress event and the final one.

    Raises:
        EvaluationError: a missing or untrustworthy score, or a child that ended without reports.
        AdapterRejectedError: an adapter that must not be loaded.
    """
    import json

    from models.jobs import run_job

    refs = {name: ref.model_dump(mode="json") for name, ref in candidates.items()}
    report_path = work_dir / "sweep_reports.json"
    final = run_job(
        "evaluation.sweep", {**job, "candidates": refs, "report_path": str(report_path)}, work_dir, on_event
    )
    path = Path(str(final.get("report_path")))
    if not path.is_file():
        raise EvaluationError("the sweep left no reports", where=path, fix="run it again: answers are cached")
    found = json.loads(path.read_bytes())
    return {name: EvalReport.model_validate(found[name]) for name in candidates}
