"""Fine-tune a LoRA adapter in a process of its own; its JSON lines become progress in Prefect and metrics in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.errors import RegistryError, SnapshotError
from data_contracts.digests import digest
from data_contracts.records import Arm
from flows.ledger import Output
from flows.privacy import paid
from flows.run import Run
from store import erasure, pointer
from training.code import code_commit


def pin_reference(run: Run) -> Output:
    """Note what preferences and thumbs are measured against. A resumed run keeps it: the same rows, the same adapter.

    It is the champion; the base where the champion is on another base, or was taught by rows that were erased since.
    """
    context = run.context
    with context.store.read() as conn:
        arm = pointer.get(conn, context.model).champion
        tainted = erasure.tainted_among(conn, [arm.version])
    if arm.adapter is None or tainted or arm.adapter.base_digest != context.base().digest:
        arm = Arm()
    run.observer.log(f"Preferences and thumbs are measured against {arm.version}.")
    return arm.model_dump(mode="json")


def training_job(run: Run) -> dict[str, Any]:
    """Everything the trainer needs, as plain data."""
    context = run.context
    base = context.base()
    against = Arm.model_validate(run.outputs.get("pin_reference") or {}).adapter
    return {
        **({} if against is None else {"reference": against.model_dump(mode="json")}),
        "base_path": str(base.path),
        "base_digest": base.digest,
        "base_ref": context.config.model.base,
        "snapshot_path": run.snapshot.path,
        "out_dir": str(context.state.adapters),
        "work_dir": str(run.work_dir / "training"),
        "config": context.config.training.model_dump(mode="json"),
        "init_seed": context.config.training.seed,
        "code_commit": code_commit(),
        "threads": context.config.model.threads,
        "token": run.ledger.request.token,
    }


def live_metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """A progress event as the tracker shows it; MLflow has a page of its own for what begins with `system/`."""
    names = {"loss": "train_loss", "lr": "learning_rate", "tok_s": "tokens_per_s", "held_out": "held_out_loss"}
    system = {f"system/trainer_{name}": float(value) for name, value in event.get("system", {}).items()}
    return {name: float(event[key]) for key, name in names.items() if event.get(key) is not None} | system


class TrainingEvents:
    """Forwards the trainer's events; a tracking server that is down costs metrics, never the training."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tracking_failed = False

    def __call__(self, event: dict[str, Any]) -> None:
        self.run.ledger.check()
        if event.get("event") != "progress":
            if event.get("event") == "stage":
                self.run.observer.log(f"Trainer: {event['text']}.")
            return
        step, steps = int(event["step"]), int(event["steps"])
        loss = event.get("loss")  # None: a private run has nothing public to tell of this step
        known = [
            f"loss {loss:.3f}" if loss is not None else "",
            f"{event['tok_s']:.0f} tokens/s" if "tok_s" in event else "",
            f"{event.get('eta_s', 0):.0f} s to go",
        ]
        self.run.observer.progress("train", step, steps, ", ".join(part for part in known if part))
        self._track(event, step)

    def _track(self, event: dict[str, Any], step: int) -> None:
        if self.run.tracking is None or self.tracking_failed:
            return
        try:
            self.run.tracking.log_metrics(live_metrics(event), step)
        except RegistryError as error:
            self.tracking_failed = True
            self.run.observer.log(f"Live metrics stop here, training goes on: {error}")


def train(run: Run) -> Output:
    """Train, or go on from the last checkpoint of an earlier attempt."""
    from training.launch import run_training

    with run.context.store.read() as conn:
        gone = erasure.erased_in_snapshot(conn, run.snapshot.digest)
    if gone:
        raise SnapshotError(
            "rows of this snapshot were erased, so it can no longer train",
            where=run.snapshot.digest,
            found=f"{gone} erased rows",
            fix="run the retrain again; it reads what is left",
        )
    job = training_job(run)
    job |= paid(run, job)
    run.observer.log(f"Training a LoRA adapter on snapshot {run.snapshot.digest[:12]} ({run.snapshot.counts}).")
    artifact = run_training(job, run.work_dir / "training", TrainingEvents(run))
    run.observer.log(
        f"Adapter {artifact.digest[:12]}: {artifact.steps} steps, {artifact.tokens} tokens in {artifact.seconds:.0f} s."
    )
    del job["token"]  # another claim of the same work
    return {"artifact": artifact.model_dump(mode="json"), "job_digest": digest(job)}
