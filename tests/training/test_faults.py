"""Faults put in for real: a base with a NaN in it, a limit on the size of files, a base that is another one."""

import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_samples import make_job, snapshot_rows

from configs.errors import ModelUnavailableError, TrainingError
from configs.schema import TrainingSection
from data_contracts.records import AdapterArtifact
from data_contracts.snapshots import read_rows
from models.packing import TokenRow
from training.checkpoint import FILE
from training.data import Pair, tokenise
from training.faults import check_weights, naming_batch, naming_memory
from training.launch import run_training
from training.packing import schedule
from training.plan import plan_rows
from training.trainer import train

SMALL = 4096
"""Bytes: less than any checkpoint or adapter, more than a log line."""


def _train_here(job: dict[str, Any], work: Path) -> AdapterArtifact:
    final = train({**job, "work_dir": str(work), "threads": 0}, lambda event: None, threading.Event())
    return AdapterArtifact.model_validate(final["artifact"])


def _poisoned_base(tiny_base: Path, folder: Path, token: int) -> Path:
    """The tiny base with a head of its own and NaN where it looks up one token."""
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors = load_file(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["lm_head.weight"] = embedding.clone()
    embedding[token] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_step_that_diverges_names_its_rows_and_the_last_good_checkpoint_stays(tiny_base: Path, tmp_path: Path):
    from transformers import AutoTokenizer

    settings = {"rows_per_step": 2, "checkpoint_steps": 1, "epochs": 1}
    rows = read_rows(make_job(tiny_base, tmp_path / "sound", **settings)["snapshot_path"], split="train")
    tokens = tokenise(rows, AutoTokenizer.from_pretrained(tiny_base), 512)
    last = schedule(len(rows), epochs=1, rows_per_step=2, seed=3)[-1]  # init_seed of the job
    seen = [set(row.prompt) for row in tokens.rows]
    only = set.difference(seen[last[0]], *(seen[i] for i in range(len(rows)) if i != last[0]))
    base = _poisoned_base(tiny_base, tmp_path / "base", min(only))
    work = tmp_path / "work"
    with pytest.raises(TrainingError, match="no longer a finite number") as caught:
        _train_here(make_job(base, tmp_path / "poisoned", **settings), work)
    assert caught.value.where == "step 4, rows " + ", ".join(rows[i].digest[:12] for i in last)
    assert "parcel" not in str(caught.value)
    saved = load_file(work / FILE)
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())
    assert [p.name for p in work.iterdir()] == [FILE]


def test_weights_no_adapter_may_have_never_become_a_checkpoint(tiny_base: Path, tmp_path: Path):
    with pytest.raises(TrainingError, match="sane number") as caught:
        _train_here(make_job(tiny_base, tmp_path, learning_rate=1e8, checkpoint_steps=1), tmp_path / "work")
    assert caught.value.where == "step 1"
    assert not (tmp_path / "work" / FILE).exists()
    check_weights([torch.ones(3)], 1)
    with pytest.raises(TrainingError):
        check_weights([torch.ones(3), torch.tensor([float("nan")])], 1)


def _trainer(work: Path) -> int:
    """The process id of the trainer that works in `work`."""
    wanted = str(work / "training.trainer.json")
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if wanted in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                return int(pid)
        except OSError:
            continue
    raise AssertionError("no trainer")


def _at(step: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event.get("step") == step:
            act()

    return on_event


@pytest.mark.parametrize("step", [5, 16])
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(
    tiny_base: Path, tmp_path: Path, step: int
):
    """At step 5 the next checkpoint cannot be written, at step 16 (the last) the adapter cannot."""
    work = tmp_path / "work"
    job = make_job(tiny_base, tmp_path, epochs=8)

    def fill() -> None:
        resource.prlimit(_trainer(work), resource.RLIMIT_FSIZE, (SMALL, SMALL))

    with pytest.raises(TrainingError, match="cannot be written") as caught:
        run_training(job, work, _at(step, fill))
    assert "free space" in (caught.value.fix or "")
    assert sorted(p.name for p in work.iterdir()) == sorted([FILE, "training.trainer.json", "training.trainer.log"])
    assert not list((tmp_path / "adapters").glob("*")) + list((tmp_path / "adapters").glob(".*"))
    events: list[dict[str, Any]] = []
    artifact = run_training(job, work, events.append)
    assert len([e for e in events if e["event"] == "progress"]) == (12 if step == 5 else 0)
    whole = run_training(make_job(tiny_base, tmp_path / "whole", epochs=8), tmp_path / "w", lambda event: None)
    assert artifact.digest == whole.digest


def test_what_a_killed_writer_left_is_removed(tiny_base: Path, tmp_path: Path):
    work = tmp_path / "work"

    def kill() -> None:
        (work / f".{FILE}.77.tmp").write_bytes(b"half")
        os.kill(_trainer(work), signal.SIGKILL)

    job = make_job(tiny_base, tmp_path, epochs=8)
    with pytest.raises(Exception, match="stopped before it finished"):
        run_training(job, work, _at(5, kill))
    run_training(job, work, lambda event: None)
    assert not list(work.glob("*.tmp")) + list(work.glob(".*.tmp"))


def test_another_base_than_the_jobs_or_the_snapshots_is_refused(tiny_base: Path, tmp_path: Path):
    job = make_job(tiny_base, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(tiny_base, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    with pytest.raises(TrainingError, match="not the ones of this job"):
        _train_here({**job, "base_path": str(other)}, tmp_path / "w1")
    moved = make_job(other, tmp_path / "moved", rows=snapshot_rows())
    with pytest.raises(TrainingError, match="made for another base"):
        _train_here({**job, "snapshot_path": moved["snapshot_path"]}, tmp_path / "w2")
    assert not (tmp_path / "adapters").exists()


def _with_config(tiny_base: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_what_cannot_fit_is_refused_before_any_weight_is_read(tiny_base: Path, tmp_path: Path):
    """A base of some 800 TB by its configuration; reading its weights, which are not there, would be another error."""
    huge = {"hidden_size": 2**20, "intermediate_size": 2**22, "num_hidden_layers": 8, "head_dim": 2**20}
    base = _with_config(tiny_base, tmp_path / "huge", **huge)
    events: list[dict[str, Any]] = []
    job = {**make_job(base, tmp_path, init_seed=TrainingSection().seed), "work_dir": str(tmp_path / "work")}
    with pytest.raises(TrainingError, match="does not fit into the device's memory") as caught:
        train(job, events.append, threading.Event())
    assert "smaller base" in str(caught.value.fix)
    assert events == []
    rows = read_rows(job["snapshot_path"], split="train")
    with pytest.raises(TrainingError) as planned:
        plan_rows(rows, base, TrainingSection.model_validate(job["config"]))
    assert (planned.value.message, planned.value.where) == (caught.value.message, caught.value.where)
    assert planned.value.found == caught.value.found


def test_a_base_without_a_chat_template_is_refused_by_plan_and_training(tiny_base: Path, tmp_path: Path):
    base = tmp_path / "plain"
    shutil.copytree(tiny_base, base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    (base / "chat_template.jinja").unlink(missing_ok=True)
    job = {**make_job(base, tmp_path), "work_dir": str(tmp_path / "work")}
    with pytest.raises(ModelUnavailableError, match="no chat template"):
        train(job, lambda event: None, threading.Event())
    with pytest.raises(ModelUnavailableError, match="no chat template"):
        plan_rows(snapshot_rows(), base, TrainingSection())


def test_used_up_memory_is_told_as_such_and_other_errors_pass():
    with pytest.raises(TrainingError, match="memory is used up"), naming_batch(3, ["ab" * 32]):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="shapes"), naming_batch(3, []):
        torch.ones(2, 3) @ torch.ones(2, 3)


def _load(cause: Callable[[], Any]) -> None:
    """As `models.loading.load_base` tells what torch says."""
    try:
        cause()
    except RuntimeError as error:
        raise ModelUnavailableError("the base model does not load") from error


def test_memory_that_is_used_up_while_a_model_is_loaded_or_asked_is_told_as_such(tiny_base: Path, tmp_path: Path):
    from models.loading import load_base
    from training.lora import add_lora
    from training.reference import with_reference

    with pytest.raises(TrainingError, match="memory is used up") as caught, naming_memory("loading the base model"):
        _load(lambda: torch.empty(2**50))
    assert caught.value.where == "loading the base model"
    with pytest.raises(ModelUnavailableError), naming_memory("loading the base model"):
        _load(lambda: torch.ones(2, 3) @ torch.ones(2, 3))
    model = add_lora(load_base(tiny_base)[0], TrainingSection(rank=4, alpha=8.0), seed=1)
    model.register_forward_pre_hook(lambda *_: torch.empty(2**50))
    pair = Pair(TokenRow((5,), (6,)), TokenRow((5,), (7,)))
    with pytest.raises(TrainingError, match="memory is used up") as caught:
        with_reference(model, [pair], None, base_digest="b", work_dir=tmp_path, fingerprint="f")
    assert "asking the reference" in str(caught.value.where)
