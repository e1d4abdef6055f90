"""What the plan says and what the run then takes, over six shapes: `python benchmarks/training_plan.py`.

Real base, log-normal row lengths (no one's text), each shape planned and then trained. Run it alone on the machine: a
plan cannot know what else will run. Last line JSON: `plan_time_error` and `plan_memory_error` are the largest relative
errors (bars: .25 and .15), `formula_memory_error` that of the formula alone.
"""

from __future__ import annotations

import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from configs.loader import cache_dir
from configs.schema import Config, TrainingSection
from data_contracts.records import Message, SnapshotRow
from data_contracts.snapshots import publish
from models.cache import ResolvedModel, resolve
from training.launch import run_training
from training.plan import plan_rows

SHAPES: dict[str, dict[str, Any]] = {
    "short": {"rows": 60, "replay": 0, "median": 25, "training": {"epochs": 2.0, "rows_per_step": 16}},
    "usual": {"rows": 60, "replay": 30, "median": 45, "training": {"epochs": 1.0}},
    "long": {"rows": 24, "replay": 12, "median": 120, "training": {"epochs": 1.0, "rows_per_step": 6}},
    "checkpointing": {
        "rows": 40,
        "replay": 20,
        "median": 45,
        "training": {"epochs": 1.0, "rank": 32, "rows_per_step": 4, "gradient_checkpointing": True},
    },
    "nf4": {"rows": 30, "replay": 15, "median": 45, "training": {"epochs": 1.0, "quantization": "nf4"}},
    "signals": {
        "rows": 20,
        "pairs": 20,
        "thumbs": 20,
        "replay": 12,
        "median": 45,
        "training": {"epochs": 1.0, "objectives": {"kto": {"weight": 0.2}}},
    },
}
WORDS = ("parcel", "order", "return", "label", "customer", "please", "you", "the", "is", "to", "when", "shipped")


def made_rows(shape: dict[str, Any], seed: int = 1) -> list[SnapshotRow]:
    """Rows whose words number log-normally (sigma .6), a third of them the completion."""
    source = random.Random(seed)

    def text(count: int) -> str:
        return " ".join(source.choice(WORDS) for _ in range(max(1, count)))

    kinds: dict[str, Any] = {"rows": "correction", "pairs": "preference", "thumbs": "thumb", "replay": "replay"}
    rows = []
    for kind in [source for key, source in kinds.items() for _ in range(shape.get(key, 0))]:
        length = max(6, min(480, round(source.lognormvariate(math.log(shape["median"]), 0.6))))
        number = len(rows)
        rows.append(
            SnapshotRow(
                digest=f"{number:064x}",
                split="train",
                source=kind,
                messages=(Message(role="user", content=text(length - length // 3 - 8)),),
                completion=text(length // 3),
                row_id="" if kind == "replay" else f"row-{number}",
                rejected=text(length // 3) + " not" if kind == "preference" else None,
                label=(1 if number % 2 else -1) if kind == "thumb" else None,
            )
        )
    return rows


def training_job(shape: dict[str, Any], config: TrainingSection, root: Path) -> dict[str, Any]:
    """A job of `training.launch.run_training` on made rows, all but its `out_dir`; the snapshot is under `root`."""
    return job_of(made_rows(shape), config, resolve(Config().model.base, cache_dir(Config())), root)


def job_of(rows: Sequence[SnapshotRow], config: TrainingSection, base: ResolvedModel, root: Path) -> dict[str, Any]:
    """The same on given rows and base."""
    snapshot = publish(
        root / "snapshots",
        rows,
        model="bench",
        contract_digest="c" * 64,
        base_digest=base.digest,
        watermark=len(rows),
        reasons={},
        replay={},
        created_at=datetime.now(UTC),
    )
    return {
        "base_path": base.path,
        "base_digest": base.digest,
        "base_ref": base.reference,
        "snapshot_path": snapshot.path,
        "config": config.model_dump(mode="json"),
        "init_seed": config.seed,
    }


def measure(name: str, root: Path) -> dict[str, Any]:
    """Plan one shape, then train it."""
    config, rows = TrainingSection(**SHAPES[name]["training"]), made_rows(SHAPES[name])
    job = training_job(SHAPES[name], config, root)
    begun = time.monotonic()
    said = plan_rows(rows, job["base_path"], config)
    planned = time.monotonic()
    artifact = run_training({**job, "out_dir": root / "adapters"}, root / "work", lambda _: None)
    took_s, peak_mb = time.monotonic() - planned, artifact.metrics["peak_memory_mb"]
    return {
        "shape": name,
        "plan_took_s": round(planned - begun, 1),
        "said_s": round(said.start_s + said.training_s, 1),
        "took_s": round(took_s, 1),
        "said_mb": said.memory_mb,
        "formula_mb": said.memory_formula_mb,
        "peak_mb": peak_mb,
        "time_error": round((said.start_s + said.training_s) / took_s - 1, 3),
        "memory_error": round(said.memory_mb / peak_mb - 1, 3),
        "formula_error": round(said.memory_formula_mb / peak_mb - 1, 3),
    }


def measure_all(names: Sequence[str], say: Callable[[str], None]) -> dict[str, Any]:
    """The largest relative errors over the shapes named."""
    found = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="tidemill-plan-") as folder:
            found.append(measure(name, Path(folder)))
        say(json.dumps(found[-1]))

    def largest(key: str) -> float:
        return max(abs(float(one[key])) for one in found)

    return {
        "shapes": len(found),
        "plan_time_error": largest("time_error"),
        "plan_memory_error": largest("memory_error"),
        "formula_memory_error": largest("formula_error"),
        "plan_time_errors": [one["time_error"] for one in found],
    }


def main() -> None:
    """Measure the shapes named on the command line, or all."""
    print(json.dumps(measure_all(sys.argv[1:] or tuple(SHAPES), lambda text: print(text, file=sys.stderr, flush=True))))


if __name__ == "__main__":
    main()
