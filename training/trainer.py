"""The trainer's process: `python -m training.trainer --job JOB.json`.

JSON lines on stdout: {"event": "progress", step, steps, loss, lr, tok_s, eta_s, and now and then system and held_out}
(`training.sft`, `training.vitals`; a private run's without tok_s and system) and {"event": "stage", "text"}; at last
{"event": "done", "artifact"} or {"event": "error", ...}. SIGTERM, or the end of the parent, saves a checkpoint and
exits with 143; running the same job again goes on from there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.deciding import deciding
from configs.errors import TrainingError
from configs.schema import TrainingSection
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, AdapterRef, DatasetSnapshot
from models.files import chat_template_digest, model_digest, tokenizer_digest
from models.jobs import Emit, Event, JobStopped, serve_job
from models.licences import base_licence
from models.packing import TokenRow
from training import checkpoint, fence, reference
from training.card import training_card
from training.code import code_commit
from training.data import Example, Pair, Rated, TokenisedRows
from training.early_stopping import best_look, looks
from training.faults import naming_memory
from training.private_job import PrivateJob
from training.ranks import ALONE, Ranks
from training.same_job import check_same_job
from training.sft import TrainResult


@dataclass(frozen=True)
class Job:
    """A parsed training job, see `training.launch.run_training`."""

    base_path: Path
    base_digest: str
    base_ref: str
    snapshot_path: Path
    out_dir: Path
    work_dir: Path
    config: TrainingSection
    init_seed: int
    code_commit: str
    threads: int
    token: int = 0
    """The claim's fencing token (`training.fence`); decides nothing of the outcome."""
    reference: AdapterRef | None = None
    """What preferences and thumbs are measured against; None is the base."""
    privacy: PrivateJob | None = None

    @classmethod
    def of(cls, data: dict[str, Any]) -> Job:
        """Read a job.

        Raises:
            TrainingError: a field is missing or unknown, or the training section is invalid.
        """
        try:
            folders = {k: Path(data[k]) for k in ("base_path", "snapshot_path", "out_dir", "work_dir")}
            config = TrainingSection.model_validate(data["config"])
            rest = {k: v for k, v in data.items() if k not in folders and k != "config"}
            if rest.get("reference") is not None:
                rest["reference"] = AdapterRef.model_validate(rest["reference"])
            rest["privacy"] = PrivateJob.of(rest.get("privacy"), config)
            return cls(**{"threads": 0, "code_commit": "", **rest, **folders, "config": config})
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError("not a training job", expected=", ".join(cls.__annotations__), found=error) from error

    @property
    def config_digest(self) -> str:
        """Digest of the training section, the seed and the reference where it is not the base.

        Settings that decide nothing about the adapter are left out (`configs.deciding`).
        """
        against = {} if self.reference is None else {"reference": self.reference.digest}
        return digest({"training": deciding(self.config), "init_seed": self.init_seed, **against})

    def fingerprint(self, snapshot: DatasetSnapshot) -> str:
        """Digest of everything that decides the outcome."""
        plain = digest([self.base_digest, snapshot.digest, self.config_digest, self.code_commit])
        return plain if self.privacy is None else self.privacy.fingerprint(plain)


def _metrics(
    job: Job, model: Any, tokenised: TokenisedRows, result: TrainResult, private: dict[str, Any]
) -> dict[str, float]:
    """The artifact's figures; a private run's without speed and memory, which tell of who was drawn."""
    from training.memory import peak_mb

    tail = result.losses[-max(1, len(result.losses) // 10) :]
    used = {
        "tokens_per_second": round(result.tokens / max(result.seconds, 1e-9), 1),
        "peak_memory_mb": round(peak_mb(model.device.type), 1),
    }
    return {
        "rows": float(len(tokenised.rows)),
        "rows_shortened": float(len(tokenised.shortened)),
        "rows_skipped": float(len(tokenised.skipped)),
        "rows_unpaired": float(len(tokenised.unpaired)),
        "rows_unused": float(len(tokenised.unused)),
        "pairs": float(tokenised.count(Pair)),
        "thumbs": float(tokenised.count(Rated)),
        **({"first_loss": result.losses[0], "final_loss": sum(tail) / len(tail)} if tail else {}),
        **{name: private[name] for name in ("epsilon", "delta", "noise_multiplier") if private},
        **best_look(result.held_out, job.config, result.steps),
        **({} if private else used),
    }


def _artifact(
    job: Job, snapshot: DatasetSnapshot, model: Any, tokenised: TokenisedRows, result: TrainResult
) -> AdapterArtifact:
    from training.lora import publish

    private = {} if job.privacy is None or job.config.privacy is None else job.privacy.card(job.config.privacy)
    facts: dict[str, Any] = {
        "base_digest": job.base_digest,
        "dataset_digest": snapshot.digest,
        "config_digest": job.config_digest,
        "code_commit": job.code_commit,
        "rank": job.config.rank,
        "alpha": job.config.alpha,
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 3),
        "metrics": _metrics(job, model, tokenised, result, private),
        "loss_curve": list(result.losses),
        "held_out_curve": looks(result.held_out, job.config, result.steps),
    }
    # How long a private run took tells of who was drawn.
    told = {key: value for key, value in facts.items() if not (private and key == "seconds")}
    tokens = {
        "tokenizer_digest": tokenizer_digest(job.base_path),
        "chat_template_digest": chat_template_digest(job.base_path),
    }
    card = training_card(
        base={
            "reference": job.base_ref,
            "digest": job.base_digest,
            "licence": base_licence(job.base_path, job.base_ref),
            **tokens,
        },
        data={
            "dataset_digest": snapshot.digest,
            "contract_digest": snapshot.contract_digest,
            "curation_digest": snapshot.config_digest,
            "counts": snapshot.counts,
            "left_out": snapshot.reasons,
            "replay": snapshot.replay,
        },
        settings=job.config.model_dump(mode="json"),
        seed=job.init_seed,
        code_commit=job.code_commit,
        result={key: told[key] for key in ("steps", "tokens", "seconds", "metrics") if key in told},
        privacy=private,
    )
    manifest = {**told, **tokens, **({"privacy": private} if private else {})}
    name, path = publish(model, job.out_dir, base_reference=job.base_ref, manifest=manifest, card=card)
    return AdapterArtifact(digest=name, path=str(path), **facts)


def _compared(
    job: Job,
    snapshot: DatasetSnapshot,
    model: Any,
    tokenised: TokenisedRows,
    emit: Emit,
    stopped: Callable[[], bool],
    ranks: Ranks,
) -> list[Example]:
    """The rows, with what the reference gives to the answers of preferences and thumbs."""
    rated = tokenised.count(Pair) + tokenised.count(Rated)
    if rated:
        whom = "the base" if job.reference is None else job.reference.version
        emit({"event": "stage", "text": f"asking {whom} for the likelihood of {2 * rated} answers"})
    return reference.with_reference(
        model,
        tokenised.rows,
        job.reference,
        base_digest=job.base_digest,
        work_dir=job.work_dir,
        fingerprint=job.fingerprint(snapshot),
        stopped=stopped,
        ranks=ranks,
    )


def _tokenised(job: Job) -> TokenisedRows:
    """The rows that train; refuses a run where none teaches, and one that cannot fit, before weights are loaded."""
    from data_contracts.snapshots import read_rows
    from models.loading import load_tokenizer
    from training.data import tokenise
    from training.fit import check_fits

    rows = read_rows(job.snapshot_path, split="train")
    most = job.config.max_row_tokens
    found = tokenise(rows, load_tokenizer(job.base_path), most, job.config.objectives, job.config.long_rows)
    replayed = sum(isinstance(row, TokenRow) and row.replay for row in found.rows)
    if replayed == len(found.rows):
        raise TrainingError(
            "no row of this snapshot can be trained on",
            where=job.snapshot_path,
            expected=f"a row of at most {most} tokens in the split `train` that teaches, which replay does not",
            found=f"{len(rows)} rows, {len(found.skipped)} too long, {len(found.unused)} without an objective, "
            f"{replayed} that replay",
            fix="raise training.max_row_tokens or a weight of training.objectives, or wait for more feedback",
        )
    check_fits(found.rows, job.base_path, job.config.model_copy(update={"seed": job.init_seed}))
    return found


def _steps(job: Job, tokenised: TokenisedRows) -> int:
    """Optimiser steps of the whole run."""
    from training.fit import steps_of, trained

    config = job.config.model_copy(update={"seed": job.init_seed})
    return len(steps_of(trained(tokenised.rows, config), config))


def _model(job: Job, ranks: Ranks) -> Any:
    """The base with a fresh adapter; the base sharded where that was asked for."""
    from models.loading import load_base
    from training.fsdp import in_turn, shard_base
    from training.lora import add_lora

    path, device, seed = job.base_path, job.config.device, job.init_seed
    if not ranks.lockstep:
        model, _ = load_base(path, device=device, quantization=job.config.quantization)
        return add_lora(model, job.config, seed=seed)
    with in_turn(ranks):
        model, _ = load_base(path, device=device, in_host_memory=True)
        return shard_base(add_lora(model, job.config, seed=seed), ranks.device)


def _check_base(job: Job, snapshot: DatasetSnapshot) -> None:
    """Refuse a base that is not the one the adapter would claim, or whose answers are not the snapshot's replay."""
    found = model_digest(job.base_path)
    for message, where, expected in (
        ("the base's files are not the ones of this job", job.base_path, job.base_digest),
        ("the snapshot was made for another base", job.snapshot_path, snapshot.base_digest),
    ):
        if expected != found:
            raise TrainingError(
                message,
                where=where,
                expected=f"base {expected}",
                found=f"base {found}",
                fix="fetch the base again (remove its folder in the model cache), or make a snapshot with this base",
            )


def _privately(job: Job, privacy: PrivateJob, model: Any, tokenised: TokenisedRows, run: dict[str, Any]) -> TrainResult:
    """The run under differential privacy."""
    from data_contracts.snapshots import read_rows
    from training.private_loop import train_private

    people = privacy.rows(read_rows(job.snapshot_path, split="train"), tokenised)
    return train_private(model, people, job.config, privacy.mechanism, privacy.stream(run["fingerprint"]), **run)


def train(data: dict[str, Any], emit: Emit, stop: threading.Event, ranks: Ranks = ALONE) -> Event:
    """Run one job: rows to a published adapter.

    Args:
        data: see `training.launch.run_training`.
        emit: takes the events.
        stop: set from outside to stop the run.
        ranks: the processes that run this job together; every one of them calls this function.

    Returns:
        {"artifact": AdapterArtifact as JSON}; nothing on ranks that do not publish.

    Raises:
        SnapshotError: the snapshot is not whole.
        TrainingError: the base is not the one the job and the snapshot name; nothing to train on; it cannot fit;
            ranks that would not train the same adapter;
            training diverged; no memory or disk left.
        StaleTokenError: a newer claim trains in this job's folder.
        JobStopped: `stop` was set; the checkpoint is saved.
    """
    from data_contracts.snapshots import read_manifest
    from models.loading import set_threads
    from training.sft import train_lora
    from training.vitals import Vitals

    job = Job.of(data)
    snapshot = read_manifest(job.snapshot_path)
    if ranks.local == 0:
        _check_base(job, snapshot)
    set_threads(job.threads)
    tokenised = _tokenised(job)
    if ranks.count > 1:
        # Nobody loads before all are here: what one holds already would be missing where another asks what is free.
        check_same_job(job.fingerprint(snapshot), code_commit(), _steps(job, tokenised), ranks)
    emit({"event": "stage", "text": "loading the base model"})
    with naming_memory("loading the base model"):
        model = _model(job, ranks)

    def stopped() -> bool:
        if ranks.main:
            fence.check(job.work_dir, job.token)
        return stop.is_set()

    if ranks.any(stopped()):
        raise JobStopped
    vitals = Vitals(model.device.type)
    examples = _compared(job, snapshot, model, tokenised, emit, stopped, ranks)
    shared = f", {ranks.count} processes" if ranks.count > 1 else ""
    text = f"training on {len(tokenised.rows)} rows, {tokenised.tokens} tokens an epoch{shared}"
    emit({"event": "stage", "text": text})
    run: dict[str, Any] = {
        "seed": job.init_seed,
        "work_dir": job.work_dir,
        "fingerprint": job.fingerprint(snapshot),
        # How busy the machine is at a private step tells who was drawn for it.
        "on_step": lambda event: emit(
            {"event": "progress", **event, **({} if job.privacy else {"system": vitals.read()})}
        ),
        "stopped": stopped,
    }
    if job.privacy is None:
        result = train_lora(model, examples, job.config, names=tokenised.digests, ranks=ranks, **run)
    else:
        result = _privately(job, job.privacy, model, tokenised, run)
    if not ranks.main:
        return {}
    fence.check(job.work_dir, job.token)
    artifact = _artifact(job, snapshot, model, tokenised, result)
    checkpoint.remove(job.work_dir)
    reference.remove(job.work_dir)
    return {"artifact": artifact.model_dump(mode="json")}


if __name__ == "__main__":
    raise SystemExit(serve_job(train))
