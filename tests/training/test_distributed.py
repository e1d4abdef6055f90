"""Two gloo processes on CPUs, started the real way, as the stand-in for two GPUs. Each run costs about ten seconds, so
four show everything; what needs no process is in test_ranks.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from test_signals import ALL, signals
from training_samples import make_job

from configs.errors import WorkerLostError
from data_contracts.records import AdapterArtifact
from models.jobs import write_json
from training.checkpoint import FILE
from training.launch import run_training
from training.trainer import train

pytestmark = [pytest.mark.slow, pytest.mark.long]

STEPS = 23
SETTINGS = {
    "rank": 4, "alpha": 8.0, "epochs": 12, "rows_per_step": 8, "learning_rate": 5e-3, "objectives": ALL,
    "checkpoint_steps": 5, "early_stopping": {"share": 0.2, "every_steps": 6, "patience": 50},
}  # fmt: skip


def job_of(base: Path, root: Path, **distributed: Any) -> dict[str, Any]:
    """Corrections, preferences, thumbs and replay, with early stopping, on two processes."""
    setting = {"processes": 2, "timeout_s": 200.0, **distributed}
    return make_job(base, root, rows=signals(), distributed=setting, **SETTINGS)


def train_alone(job: dict[str, Any], work: Path) -> AdapterArtifact:
    """One process, this one; goes on from whatever checkpoint is in `work`."""
    final = train({**job, "work_dir": str(work)}, lambda event: None, threading.Event())
    return AdapterArtifact.model_validate(final["artifact"])


@pytest.fixture(scope="module")
def alone(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterArtifact:
    root = tmp_path_factory.mktemp("alone")
    return train_alone(job_of(tiny_base, root), root / "work")


def assert_same(one: AdapterArtifact, other: AdapterArtifact) -> None:
    from safetensors.torch import load_file

    assert one.loss_curve == pytest.approx(other.loss_curve, abs=1e-5)
    assert (one.steps, one.tokens, one.config_digest) == (other.steps, other.tokens, other.config_digest)
    assert one.metrics["held_out_loss"] == pytest.approx(other.metrics["held_out_loss"], abs=1e-5)
    a, b = (load_file(Path(each.path) / "adapter_model.safetensors") for each in (one, other))
    assert a.keys() == b.keys()
    assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5


def started(work: Path) -> dict[int, str]:
    """Processes of the run in `work` that are alive: id -> rank, or `launcher`."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError):
            if str(work / "training.rank.json").encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                found[pid] = dict(pair.partition("=")[::2] for pair in pairs).get("RANK", "launcher")
    return found


def assert_none_left(work: Path) -> None:
    """Ranks leave within the 20 s they have to save; a run this small needs one or two."""
    until = time.monotonic() + 60
    while started(work) and time.monotonic() < until:
        time.sleep(0.1)
    assert started(work) == {}


def log_of(work: Path) -> str:
    return (work / "training.rank.log").read_text(encoding="utf-8")


def test_two_processes_end_with_the_single_processs_adapter(
    tiny_base: Path, tmp_path: Path, alone: AdapterArtifact
) -> None:
    events: list[dict[str, Any]] = []
    artifact = run_training(job_of(tiny_base, tmp_path), tmp_path / "work", events.append)
    assert len(alone.loss_curve) == STEPS
    assert_same(artifact, alone)
    assert [event["step"] for event in events if event["event"] == "progress"] == list(range(1, STEPS + 1)), "once each"
    assert [event["event"] for event in events].count("done") == 1
    assert any("2 processes" in event.get("text", "") for event in events)
    assert not {path.name for path in (tmp_path / "work").iterdir()} - {"training.rank.json", "training.rank.log"}
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [artifact.digest]
    assert_none_left(tmp_path / "work")


def test_a_sharded_base_stops_when_asked_and_one_process_goes_on(
    tiny_base: Path, tmp_path: Path, alone: AdapterArtifact
) -> None:
    """FSDP; and the way a flow is cancelled: an exception in the parent, SIGTERM to the launcher."""
    job, work = job_of(tiny_base, tmp_path, strategy="fsdp"), tmp_path / "work"
    losses: list[float] = []

    def cancel(event: dict[str, Any]) -> None:
        if event["event"] == "progress":
            losses.append(event["loss"])
        if event.get("step") == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(job, work, cancel)
    assert_none_left(work)
    assert losses == pytest.approx(alone.loss_curve[:7], abs=2e-5)
    assert not list((tmp_path / "adapters").glob("*"))
    resumed: list[int] = []
    final = train({**job, "work_dir": str(work)}, lambda e: resumed.append(e.get("step", 0)), threading.Event())
    assert min(step for step in resumed if step) not in {1, 6}, "from where it stopped, not from an interval"
    assert_same(AdapterArtifact.model_validate(final["artifact"]), alone)


def test_a_rank_that_dies_ends_the_others_with_one_error_and_loses_an_interval_at_most(
    tiny_base: Path, tmp_path: Path, alone: AdapterArtifact
) -> None:
    job, work = job_of(tiny_base, tmp_path), tmp_path / "work"

    def kill(event: dict[str, Any]) -> None:
        if event.get("step") == 8:
            os.kill(next(pid for pid, rank in started(work).items() if rank == "1"), signal.SIGKILL)

    with pytest.raises(WorkerLostError, match="another process of this training was lost") as caught:
        run_training(job, work, kill)
    assert "rank 0 of 2" in str(caught.value.where)
    assert "exitcode  : -9" in log_of(work), "the launcher's log says which and how"
    assert_none_left(work)
    assert_same(train_alone(job, work), alone)


def test_no_rank_outlives_a_parent_that_was_killed(tiny_base: Path, tmp_path: Path, alone: AdapterArtifact) -> None:
    job, work = job_of(tiny_base, tmp_path), tmp_path / "work"
    write_json(tmp_path / "job.json", job)
    code = (
        "import json, sys; from pathlib import Path; from training.launch import run_training;"
        "run_training(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), lambda event: print(event))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "job.json"), str(work)], stdout=subprocess.DEVNULL
    ) as parent:
        until = time.monotonic() + 150
        while not (work / FILE).is_file() and parent.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert sorted(started(work).values()) == ["0", "1", "launcher"], log_of(work)
        parent.kill()
    assert_none_left(work)
    assert not list((tmp_path / "adapters").glob("*"))
    assert_same(train_alone(job, work), alone)
