"""Starting the trainer from a flow or the command line, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from data_contracts.records import AdapterArtifact
from models.jobs import run_job
from training import fence


def run_training(
    job: Mapping[str, Any],
    work_dir: Path,
    on_event: Callable[[dict[str, Any]], None],
    env: Mapping[str, str] | None = None,
) -> AdapterArtifact:
    """Train one adapter, going on from the last checkpoint in `work_dir` if it is of the same run.

    Args:
        job: base_path, base_digest, base_ref, snapshot_path, out_dir (the adapters' root), config (a dumped
            TrainingSection), init_seed, code_commit, threads, `reference` (a dumped AdapterRef) where it is not the
            base, and `token`, the claim's, where others might train in the same folder. `work_dir` is added if it is
            not in it.
        work_dir: job file, log and checkpoint.
        on_event: called with each event of `training.trainer`; an exception it raises stops the trainer.
        env: more environment variables of the trainer.

    Raises:
        TidemillError: what the trainer reported; TrainingError if it died; StaleTokenError if another claim has it.
    """
    fence.take(work_dir, int(job.get("token", 0)))
    whole = {"work_dir": str(work_dir), **job}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in whole.items()}
    final = run_job("training.trainer", plain, work_dir, on_event, env)
    return AdapterArtifact.model_validate(final["artifact"])
