"""The trainer's process: `python -m training.trainer --job JOB.json`.

JSON lines on stdout: {"event": "progress", step, steps, loss, tok_s, eta_s} and {"event": "stage", "text"}; at last
{"event": "done", "artifact"} or {"event": "error", ...}. SIGTERM, or the end of the parent, saves a checkpoint and
exits with 143; running the same job again goes on from there.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import TrainingError
from configs.schema import TrainingSection
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, AdapterRef, DatasetSnapshot
from models.files import chat_template_digest, model_digest, tokenizer_digest
from models.jobs import Emit, Event, JobStopped, serve_job
from models.licences import base_licence
from training import checkpoint, reference
from training.card import training_card
from training.data import Example, Pair, Rated, TokenisedRows
from training.private_job import PrivateJob
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
        """Digest of the training section, the seed and the reference where it is not the base."""
        against = {} if self.reference is None else {"reference": self.reference.digest}
        return digest({"training": self.config.model_dump(mode="json"), "init_seed": self.init_seed, **against})

    def fingerprint(self, snapshot: DatasetSnapshot) -> str:
        """Digest of everything that decides the outcome."""
        plain = digest([self.base_digest, snapshot.digest, self.config_digest, self.code_commit])
        return plain if self.privacy is None else self.privacy.fingerprint(plain)


def _artifact(
    job: Job, snapshot: DatasetSnapshot, model: Any, tokenised: TokenisedRows, result: TrainResult
) -> AdapterArtifact:
    from training.lora import publish
    from training.memory import peak_mb

    tail = result.losses[-max(1, len(result.losses) // 10) :]
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
        "metrics": {
            "rows": float(len(tokenised.rows)),
            "rows_shortened": float(len(tokenised.shortened)),
            "rows_skipped": float(len(tokenised.skipped)),
            "rows_unpaired": float(len(tokenised.unpaired)),
            "rows_unused": float(len(tokenised.unused)),
            "pairs": float(tokenised.count(Pair)),
            "thumbs": float(tokenised.count(Rated)),
            **({"first_loss": result.losses[0], "final_loss": sum(tail) / len(tail)} if tail else {}),
            **{name: private[name] for name in ("epsilon", "delta", "noise_multiplier") if private},
            "tokens_per_second": round(result.tokens / max(result.seconds, 1e-9), 1),
            **({"held_out_loss": min(result.held_out)} if result.held_out else {}),
            "peak_memory_mb": round(peak_mb(model.device.type), 1),
        },
        "loss_curve": list(result.losses),
    }
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
        result={key: facts[key] for key in ("steps", "tokens", "seconds", "metrics")},
        privacy=private,
    )
    manifest = {**facts, **tokens, **({"privacy": private} if private else {})}
    name, path = publish(model, job.out_dir, base_reference=job.base_ref, manifest=manifest, card=card)
    return AdapterArtifact(digest=name, path=str(path), **facts)


def _compared(
    job: Job, snapshot: DatasetSnapshot, model: Any, tokenised: TokenisedRows, emit: Emit, stop: threading.Event
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
        stopped=stop.is_set,
    )


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


def train(data: dict[str, Any], emit: Emit, stop: threading.Event) -> Event:
    """Run one job: rows to a published adapter.

    Returns:
        {"artifact": AdapterArtifact as JSON}.

    Raises:
        SnapshotError: the snapshot is not whole.
        TrainingError: the base is not the one the job and the snapshot name; nothing to train on; training diverged; no
            memory or disk left.
        JobStopped: `stop` was set; the checkpoint is saved.
    """
    from data_contracts.snapshots import read_manifest, read_rows
    from models.loading import load_base, set_threads
    from training.data import tokenise
    from training.lora import add_lora
    from training.private_loop import train_private
    from training.sft import train_lora

    job = Job.of(data)
    snapshot = read_manifest(job.snapshot_path)
    rows = read_rows(job.snapshot_path, split="train")
    _check_base(job, snapshot)
    set_threads(job.threads)
    emit({"event": "stage", "text": "loading the base model"})
    model, tokenizer = load_base(job.base_path, device=job.config.device, quantization=job.config.quantization)
    tokenised = tokenise(rows, tokenizer, job.config.max_row_tokens, job.config.objectives)
    if not tokenised.rows:
        raise TrainingError(
            "no row of this snapshot can be trained on",
            where=job.snapshot_path,
            expected=f"rows of at most {job.config.max_row_tokens} tokens in the split `train`",
            found=f"{len(rows)} rows, {len(tokenised.skipped)} too long, {len(tokenised.unused)} without an objective",
            fix="raise training.max_row_tokens or a weight of training.objectives, or wait for more feedback",
        )
    if stop.is_set():
        raise JobStopped
    model = add_lora(model, job.config, seed=job.init_seed)
    examples = _compared(job, snapshot, model, tokenised, emit, stop)
    emit({"event": "stage", "text": f"training on {len(tokenised.rows)} rows, {tokenised.tokens} tokens an epoch"})
    run: dict[str, Any] = {
        "seed": job.init_seed,
        "work_dir": job.work_dir,
        "fingerprint": job.fingerprint(snapshot),
        "on_step": lambda event: emit({"event": "progress", **event}),
        "stopped": stop.is_set,
    }
    if job.privacy is None:
        result = train_lora(model, examples, job.config, names=tokenised.digests, **run)
    else:
        stream, people = job.privacy.stream(run["fingerprint"]), job.privacy.rows(rows, tokenised)
        result = train_private(model, people, job.config, job.privacy.mechanism, stream, **run)
    artifact = _artifact(job, snapshot, model, tokenised, result)
    checkpoint.remove(job.work_dir)
    reference.remove(job.work_dir)
    return {"artifact": artifact.model_dump(mode="json")}


if __name__ == "__main__":
    raise SystemExit(serve_job(train))
