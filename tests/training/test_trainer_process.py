import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from training_samples import PAIRS, make_job, snapshot_rows

from configs.errors import SnapshotError, TidemillError, TrainingError, WorkerLostError
from data_contracts.records import AdapterArtifact, AdapterRef
from models.adapters import check_adapter
from training.checkpoint import FILE
from training.launch import run_training
from training.trainer import train


def _train(job: dict[str, Any], work: Path) -> tuple[AdapterArtifact, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return run_training(job, work, events.append), [e for e in events if e["event"] == "progress"]


def _train_here(job: dict[str, Any], work: Path) -> AdapterArtifact:
    """The same work without a process of its own."""
    final = train({**job, "work_dir": str(work), "threads": 0}, lambda event: None, threading.Event())
    return AdapterArtifact.model_validate(final["artifact"])


def _ref(artifact: AdapterArtifact) -> AdapterRef:
    return AdapterRef(
        version="support-bot@v1", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest
    )


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AdapterArtifact, list[dict[str, Any]]]:
    root = tmp_path_factory.mktemp("trained")
    return _train(make_job(tiny_base, root, epochs=20), root / "work")


def test_training_teaches_the_rows_and_reports_its_progress(tiny_base: Path, trained):
    from models.generate import generate
    from models.loading import attach, load_base

    artifact, progress = trained
    assert [e["step"] for e in progress] == list(range(1, artifact.steps + 1))
    assert progress[-1]["steps"] == artifact.steps == 40
    assert progress[-1]["eta_s"] == 0
    assert artifact.loss_curve[-1] < 0.1 < 5 < artifact.loss_curve[0]
    assert len(artifact.loss_curve) == artifact.steps
    config = check_adapter(_ref(artifact))
    assert config["base_model_name_or_path"] == "tiny:0"
    assert "lm_head" not in config["target_modules"]
    model, tokenizer = load_base(tiny_base)
    peft_model = attach(model, _ref(artifact))
    talks = [[{"role": "user", "content": question}] for question, _ in PAIRS]
    answers = generate(peft_model, tokenizer, talks, max_new_tokens=32, adapter="support-bot@v1")
    assert answers == [answer for _, answer in PAIRS]


def test_the_same_job_gives_the_same_adapter_and_another_seed_another(tiny_base: Path, tmp_path: Path):
    one = _train_here(make_job(tiny_base, tmp_path / "a", epochs=2), tmp_path / "a")
    two = _train_here(make_job(tiny_base, tmp_path / "b", epochs=2), tmp_path / "b")
    other = _train_here(make_job(tiny_base, tmp_path / "c", epochs=2, init_seed=4), tmp_path / "c")
    assert one.digest == two.digest != other.digest
    assert one.config_digest == two.config_digest != other.config_digest
    assert not (tmp_path / "a" / FILE).exists()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_and_ends_with_the_same_adapter(tiny_base: Path, tmp_path: Path, trained, sign):
    job = make_job(tiny_base, tmp_path, epochs=20)
    work = tmp_path / "work"

    def kill(event: dict[str, Any]) -> None:
        if event.get("step") == 25:
            trainers = [int(p) for p in os.listdir("/proc") if p.isdecimal() and _is_trainer(int(p), work)]
            os.kill(trainers[0], sign)

    with pytest.raises(WorkerLostError, match="stopped before it finished"):
        run_training(job, work, kill)
    assert (work / FILE).is_file()
    assert not list((tmp_path / "adapters").glob("*"))
    artifact, progress = _train(job, work)
    assert progress[0]["step"] > 20
    assert artifact.digest == trained[0].digest
    assert artifact.loss_curve == trained[0].loss_curve
    assert artifact.tokens == trained[0].tokens
    assert [p.name for p in (tmp_path / "adapters").iterdir()] == [artifact.digest]


def _is_trainer(pid: int, work: Path) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return False
    return "training.trainer" in command and str(work / "training.trainer.json") in command


def test_a_checkpoint_of_another_run_is_not_used(tiny_base: Path, tmp_path: Path):
    work = tmp_path / "work"

    def stop(event: dict[str, Any]) -> None:
        if event.get("step") == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_training(make_job(tiny_base, tmp_path, epochs=20), work, stop)
    assert (work / FILE).is_file()
    _, progress = _train(make_job(tiny_base, tmp_path, epochs=2, learning_rate=1e-3), work)
    assert progress[0]["step"] == 1


def test_training_that_diverges_stops_with_a_clear_error(tiny_base: Path, tmp_path: Path):
    job = make_job(tiny_base, tmp_path, epochs=30, learning_rate=1e30)
    with pytest.raises(TrainingError, match="no longer a finite number") as caught:
        _train_here(job, tmp_path / "work")
    assert "learning_rate" in (caught.value.fix or "")
    assert not list((tmp_path / "adapters").glob("*"))


def test_bad_jobs_and_snapshots_are_refused(tiny_base: Path, tmp_path: Path):
    job = make_job(tiny_base, tmp_path)
    with pytest.raises(TrainingError, match="not a training job"):
        _train_here({k: v for k, v in job.items() if k != "base_digest"}, tmp_path / "w1")
    with pytest.raises(SnapshotError):
        _train_here({**job, "snapshot_path": str(tmp_path / "none")}, tmp_path / "w2")
    held_out = [row.model_copy(update={"split": "target"}) for row in snapshot_rows()]
    with pytest.raises(TidemillError, match="no row of this snapshot"):
        _train_here(make_job(tiny_base, tmp_path / "t", rows=held_out), tmp_path / "w3")
    first, second, *_ = snapshot_rows()
    rows = [first.model_copy(update={"completion": "very long " * 600}), second.model_copy(update={"source": "replay"})]
    with pytest.raises(TidemillError, match="no row of this snapshot") as caught:
        _train_here(make_job(tiny_base, tmp_path / "r", rows=rows), tmp_path / "w4")
    assert "1 too long" in str(caught.value.found)
    assert "1 that replay" in str(caught.value.found)
