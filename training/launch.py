"""Starting the trainer from a flow or the command line: in a process of its own, or in several under `accelerate`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from configs.distributed import DistributedSection
from configs.errors import ConfigError, TidemillError, WorkerLostError
from data_contracts.records import AdapterArtifact
from models.jobs import run_job
from training import fence, nodes
from training.nodes import Node


def threads_each(threads: int, processes: int) -> int:
    """CPU threads of one of `processes` on this machine; `threads` 0 means as many as there are cores to use."""
    return max(1, (threads or len(os.sched_getaffinity(0))) // processes)


def launcher(setting: DistributedSection, node: Node) -> list[str]:
    """The arguments of `python` that start a module as every process of this machine.

    `--multi_gpu` is accelerate's name for torch's elastic agent, and right without a GPU too: `--cpu` starts one
    process and leaves the others to MPI. Nothing is restarted in place: the flow starts the run again.
    """
    place = ["--main_process_port", str(node.port)]
    if setting.machines > 1:
        place += ["--machine_rank", str(node.rank), "--main_process_ip", node.address, "--same_network"]
    return [
        *("-m", "accelerate.commands.launch", "--multi_gpu"),
        *("--num_processes", str(setting.together), "--num_machines", str(setting.machines)),
        *place,
        *("--rdzv_conf", f"timeout={math.ceil(setting.timeout_s)}"),  # torch's own is 900 s
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--module"),
    ]


def run_ranks(
    job: Mapping[str, Any],
    work_dir: Path,
    on_event: Callable[[dict[str, Any]], None],
    env: Mapping[str, str] | None,
    node: Node,
    call: str = "",
) -> dict[str, Any]:
    """Run this machine's processes of a job to their end; returns the final event, see `models.jobs.run_job`.

    Machines meet under the id of the call they heard, so that one that follows an older call joins no other's run.

    Raises:
        WorkerLostError: the launcher ended before any process said anything: mostly a machine that did not come.
    """
    setting = DistributedSection.model_validate(job["config"]["distributed"])
    own = {**job, "threads": threads_each(int(job.get("threads") or 0), setting.processes)}
    meeting = {"PET_RDZV_ID": call} if call else {}  # torch's --rdzv_id, which accelerate has no argument for
    # PYTHONSAFEPATH: for the ranks what -P is for the launcher.
    whole = {"PYTHONSAFEPATH": "1", **meeting, **(env or {})}

    def unsaid(log: Path, found: str) -> TidemillError:
        return lost_launcher(setting, node, log, found)

    return run_job("training.rank", own, work_dir, on_event, whole, launcher(setting, node), unsaid)


def lost_launcher(setting: DistributedSection, node: Node, log: Path, found: str) -> WorkerLostError:
    """The error of a launcher that ended before any of its processes said how."""
    others = [str(rank) for rank in range(setting.machines) if rank != node.rank]
    where = f"machine {node.rank} of {setting.machines}" + (
        f", meeting at {node.address}:{node.port}" if others else ""
    )
    waiting = (
        f"see that machine {' and '.join(others)} (NODE_RANK) runs and reaches that address, then " if others else ""
    )
    return WorkerLostError(
        "the processes that train together ended before any of them said why",
        where=f"{where}; {log}",
        expected=f"{setting.processes} processes on each of {setting.machines} machines within {setting.timeout_s:g} s",
        found=found,
        fix=f"{waiting}run it again: finished work is kept",
    )


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
            not in it. Where config.distributed asks for several processes, they are started on this machine, and called
            to on the others (`training.nodes`).
        work_dir: job file, log and checkpoint.
        on_event: called with each event of `training.trainer`; an exception it raises stops the trainer.
        env: more environment variables of the trainer.

    Raises:
        TidemillError: what the trainer reported; TrainingError if it died; WorkerLostError if it, or one of several
            processes, was stopped or killed, or a machine did not come; StaleTokenError if another claim has it;
            ConfigError on a machine that is not the first of several.
    """
    setting = DistributedSection.model_validate(dict(job["config"]).get("distributed") or {})
    node = nodes.this_node(setting, os.environ)
    if node.rank != 0:
        raise ConfigError(
            "a flow trains on the first machine only: the others follow its call",
            where="environment",
            expected="NODE_RANK=0",
            found=f"NODE_RANK={node.rank}",
            fix="run the flow's worker on machine 0, and here `python -m training.nodes --adapters STATE/adapters`",
        )
    fence.take(work_dir, int(job.get("token", 0)))
    whole = {"work_dir": str(work_dir), **job}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in whole.items()}
    if setting.together == 1:
        final = run_job("training.trainer", plain, work_dir, on_event, env)
    else:
        with nodes.called(setting, plain) as call:
            final = run_ranks(plain, work_dir, on_event, env, node, call)
    return AdapterArtifact.model_validate(final["artifact"])
