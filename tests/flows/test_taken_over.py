"""A training job of a worker that is taken for dead: another one goes on, and the first, alive, is refused."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from configs.errors import StaleTokenError
from data_contracts.records import Cause, SnapshotRow, utc_now
from data_contracts.snapshots import publish
from flows.context import Context, open_context
from flows.ledger import Ledger
from flows.observer import PrintObserver
from flows.run import Run
from flows.steps.train import train
from registry_hooks.memory import MemoryRegistry, MemoryRun
from store import requests, steps
from tests.flows.flow_samples import tiny_config
from training import fence
from training.checkpoint import FILE

pytestmark = [pytest.mark.slow, pytest.mark.long]


class Watching(PrintObserver):
    """Acts once, at a step of the training or the first one after it."""

    def __init__(self, at: int = 0, act: Callable[[], None] = lambda: None) -> None:
        super().__init__(quiet=True)
        self.at, self.acts = at, [act]
        self.seen: list[int] = []

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        self.seen.append(int(done))
        self.lines.append(note)
        if done >= self.at and self.acts:
            self.acts.pop()()


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    settings = {"epochs": 60, "rows_per_step": 4, "checkpoint_steps": 4}
    settings |= {"early_stopping": {"share": 0.2, "every_steps": 5, "patience": 1000}}
    opened = open_context(tiny_config(tmp_path / "state", training=settings))
    opened.__dict__["registry"] = MemoryRegistry()  # the seam's in-memory double
    yield opened
    opened.store.close()


def claimed(context: Context, request_id: str, snapshot: Any, observer: PrintObserver) -> Run:
    ledger = Ledger.claim(context.store, request_id, 60.0)
    assert ledger is not None
    run = Run(context, ledger, observer)
    run.outputs["snapshot"] = {"snapshot": snapshot}
    run.tracking = context.registry.start_run("retrain", {}, {})
    return run


def do(run: Run) -> dict[str, Any]:
    return run.ledger.step("train", {"snapshot": run.snapshot.digest}, lambda: train(run))


def trainers() -> list[psutil.Process]:
    found = [p for p in psutil.Process().children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
    return [p for p in found if "training.trainer" in " ".join(p.cmdline())]


def test_another_worker_goes_on_from_the_checkpoint_and_the_first_is_refused_while_it_lives(context: Context) -> None:
    rows = [
        SnapshotRow.model_validate(
            {
                "digest": f"{n:064x}", "split": "train", "source": "correction", "completion": f"Answer {n}.",
                "messages": [{"role": "user", "content": f"Question {n}?"}], "row_id": f"row-{n}",
            }
        )
        for n in range(10)
    ]  # fmt: skip
    made = publish(
        context.state.snapshots, rows, model=context.model, contract_digest="c" * 64,
        base_digest=context.base().digest, watermark=10, reasons={}, replay={}, created_at=utc_now(),
    )  # fmt: skip
    with context.store.write() as conn:
        request, _ = requests.open_or_attach(conn, context.model, Cause(kind="schedule", at=utc_now()))
        requests.set_ready(conn, request.id)
    snapshot = made.model_dump(mode="json")
    second: list[Run] = []
    outputs: list[dict[str, Any]] = []

    def take_over() -> None:
        """The first worker's machine hangs; the lease runs out, another process claims, and the first wakes up."""
        (stale,) = trainers()
        os.kill(stale.pid, signal.SIGSTOP)
        with context.store.write() as conn:
            requests.renew(conn, request.id, first.ledger.request.token, 0.0)
        threading.Event().wait(0.01)
        wake = Watching(act=lambda: os.kill(stale.pid, signal.SIGCONT))
        second.append(claimed(context, request.id, snapshot, wake))
        outputs.append(do(second[0]))

    first = claimed(context, request.id, snapshot, Watching(at=6, act=take_over))
    with pytest.raises(StaleTokenError, match="taken this training over"):
        do(first)
    folder = first.work_dir / "training"
    watching = second[0].observer
    assert isinstance(watching, Watching)
    assert watching.seen[0] > 1
    assert watching.seen[0] % 4 == 1, "on from a checkpoint"
    assert watching.seen[-1] == 120
    assert [path.name for path in context.state.adapters.glob("[0-9a-f]*")] == [outputs[0]["artifact"]["digest"]]
    assert not (folder / FILE).exists()
    assert (folder / fence.FILE).read_text() == str(second[0].ledger.request.token)
    with context.store.read() as conn:
        (step,) = steps.list_steps(conn, request.id)
    assert (step.status, step.token) == ("done", second[0].ledger.request.token)
    with pytest.raises(StaleTokenError):
        do(first)

    # What the second run told as it went.
    assert any("loading the base model" in line for line in watching.lines)
    assert any(line.startswith("loss ") and "tokens/s" in line and "s to go" in line for line in watching.lines)
    told = second[0].tracking
    assert isinstance(told, MemoryRun)
    names = set().union(*(metrics.keys() for _, metrics in told.metrics))
    assert {"train_loss", "learning_rate", "tokens_per_s", "held_out_loss"} <= names
    assert {"system/trainer_cpu_percent", "system/trainer_memory_mb"} <= names
    assert {step for step, metrics in told.metrics if "held_out_loss" in metrics} <= set(range(5, 121, 5))
    curve = outputs[0]["artifact"]["held_out_curve"]
    assert [step for step, _ in curve] == list(range(5, 121, 5))
