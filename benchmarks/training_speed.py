"""How fast is training, what does a kill cost, does cost grow with tokens, and does the plan say so beforehand?

    python benchmarks/training_speed.py [--seed 0] [--rounds 5] [--parts speed,resume,cost,plan]

SmolLM2-135M, LoRA r 16 on all linear layers, rows of log-normal lengths (median 45 tokens), half of each supervised.
`speed`: ours, TRL (its defaults, and its best settings) and transformers' Trainer (`training_sides.py`) take turns on
the same rows; the first step of a process is not timed; ratios are medians over the rounds. `resume`: a run killed with
SIGKILL and run again, against one left alone. `cost`: seconds against tokens, the long end by the last steps of a run
resumed there. `plan`: `training_plan.py`. Run it alone on the machine. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import training_plan
from training_sides import BASE, adapted

MEDIAN, SIGMA, LONGEST = 45, 0.6, 400
SIDES = ("ours", "trl", "trl_best", "trainer")
PARTS = ("speed", "resume", "cost", "plan")
WORDS = [
    "parcel", "order", "refund", "voucher", "address", "courier", "invoice", "account", "delivery", "return", "item",
    "label", "price", "shop", "colour", "size", "lamp", "chair", "kettle", "towel", "blanket", "mirror", "carpet",
    "where", "when", "how", "what", "please", "tell", "me", "about", "the", "my", "your", "is", "it", "can", "will",
    "today", "tomorrow", "Friday", "week", "month", "open", "close", "change", "cancel", "send", "receive", "pay",
]  # fmt: skip
Row = dict[str, list[int]]


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def make_rows(tokenizer: Any, count: int, seed: int) -> list[Row]:
    """`count` rows of log-normal lengths, in tokens; the second half of each is the completion."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        length = max(8, min(LONGEST, round(rng.lognormvariate(0.0, SIGMA) * MEDIAN)))
        text = " ".join(rng.choice(WORDS) for _ in range(length))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][:length]
        rows.append({"prompt": ids[: length // 2], "completion": ids[length // 2 :]})
    return rows


def tokens_of(rows: list[Row]) -> int:
    """Tokens without padding."""
    return sum(len(row["prompt"]) + len(row["completion"]) for row in rows)


# --- speed ---------------------------------------------------------------------------------------


def run_side(name: str, file: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One side, in a process of its own."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("training_sides.py")),
        name,
        str(file),
        "--steps",
        str(options.steps),
    ]
    command += ["--rows-per-step", str(options.rows_per_step), "--seed", str(options.seed)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def sgemm_rate(seconds: float = 3.0) -> float:
    """FLOP/s of large single-precision products on all cores, the median over a few seconds: this machine's limit."""
    import torch

    side, rates = 2048, []
    one, two = torch.randn(side, side), torch.randn(side, side)
    over = time.perf_counter() + seconds
    while time.perf_counter() < over:
        begun = time.perf_counter()
        one @ two
        rates.append(2 * side**3 / (time.perf_counter() - begun))
    return statistics.median(rates)


def nf4_weight_ratio(path: Path) -> float:
    """Bytes of the base's weights in NF4, with their scales, over those in fp32; tied weights counted once."""
    from models.loading import load_base

    def size(quantization: str) -> int:
        model, _ = load_base(path, quantization=quantization)
        total = 0
        for p in {p.data_ptr(): p for p in model.parameters()}.values():
            total += p.numel() * p.element_size()
            state = getattr(p, "quant_state", None)
            while state is not None:  # the scales, and the scales of the scales
                total += state.absmax.numel() * state.absmax.element_size()
                state = state.state2
        return total

    return size("nf4") / size("none")


def speed(path: Path, tokenizer: Any, parameters: int, options: argparse.Namespace) -> dict[str, Any]:
    """All sides in turn, `options.rounds` times."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    rates: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            rows = make_rows(tokenizer, options.rows_per_step * options.steps, options.seed + number)
            file = Path(folder) / f"rows-{number}.json"
            file.write_text(json.dumps(rows))
            for name in SIDES[number % len(SIDES) :] + SIDES[: number % len(SIDES)]:
                if name == "ours":
                    rates.append(sgemm_rate())
                found = run_side(name, file, options)
                found["tok_s"] = tokens_of(rows[options.rows_per_step :]) / sum(found["times"][1:])
                runs[name].append(found)
            say(f"round {number + 1}: " + ", ".join(f"{n} {runs[n][-1]['tok_s']:.0f} tokens/s" for n in SIDES))

    def middle(name: str, key: str) -> float:
        return statistics.median(float(run[key]) for run in runs[name])

    def ratio(name: str, key: str) -> float:
        return statistics.median(a[key] / b[key] for a, b in zip(runs["ours"], runs[name], strict=True))

    def apart(name: str) -> float:
        pairs = zip(runs["ours"], runs[name], strict=True)
        return max(abs(x - y) / abs(y) for a, b in pairs for x, y in zip(a["losses"], b["losses"], strict=True))

    limit = statistics.median(rates)
    return {
        "tok_s": round(middle("ours", "tok_s"), 1),
        **{f"tok_s_{name}": round(middle(name, "tok_s"), 1) for name in SIDES[1:]},
        **{f"ratio_vs_{name}": round(ratio(name, "tok_s"), 2) for name in SIDES[1:]},
        "ratio_vs_trl_worst": round(
            min(a["tok_s"] / b["tok_s"] for a, b in zip(runs["ours"], runs["trl"], strict=True)), 2
        ),
        "loss_rel_diff": round(max(apart(name) for name in SIDES[1:]), 6),
        "sgemm_gflop_s": round(limit / 1e9, 1),
        "sgemm_share": round(
            statistics.median(r["tok_s"] * 4 * parameters / g for r, g in zip(runs["ours"], rates, strict=True)), 3
        ),
        "peak_mb": round(middle("ours", "peak_mb")),
        "peak_mb_ratio_vs_trl": round(ratio("trl", "peak_mb"), 3),
        "peak_mb_ratio_vs_trl_best": round(ratio("trl_best", "peak_mb"), 3),
        "nf4_weight_ratio": round(nf4_weight_ratio(path), 3),
    }


# --- resume --------------------------------------------------------------------------------------


class Killer:
    """Ends the trainer with SIGKILL once it reports a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self, event: dict[str, Any]) -> None:
        """One event of the trainer."""
        import psutil

        if event.get("event") == "progress" and event["step"] >= self.step:
            for child in psutil.Process().children(recursive=True):
                if "training.trainer" in child.cmdline():
                    child.send_signal(signal.SIGKILL)


def largest_difference(one: Path, two: Path) -> float:
    """Largest absolute difference between two adapters' weights."""
    from safetensors.torch import load_file

    a, b = load_file(one / "adapter_model.safetensors"), load_file(two / "adapter_model.safetensors")
    if a.keys() != b.keys():
        return math.inf
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def resume() -> dict[str, Any]:
    """A run left alone, then the same run killed halfway between two checkpoints and run again."""
    from configs.errors import WorkerLostError
    from configs.schema import TrainingSection
    from training.launch import run_training

    shape = {"rows": 120, "replay": 60, "median": MEDIAN}
    config = TrainingSection(epochs=1.0, rows_per_step=6, checkpoint_steps=10)
    kill_at = 15
    with tempfile.TemporaryDirectory(prefix="tidemill-resume-") as folder:
        root = Path(folder)
        job = training_plan.training_job(shape, config, root)
        begun = time.monotonic()
        alone = run_training({**job, "out_dir": root / "one"}, root / "work-one", lambda _: None)
        alone_s = time.monotonic() - begun
        say(f"left alone: {alone_s:.1f} s, {alone.steps} steps")
        begun = time.monotonic()
        try:
            run_training({**job, "out_dir": root / "two"}, root / "work-two", Killer(kill_at))
            raise SystemExit("the trainer was to be killed")
        except WorkerLostError:
            say(f"killed after {time.monotonic() - begun:.1f} s")
        again = run_training({**job, "out_dir": root / "two"}, root / "work-two", lambda _: None)
        both_s = time.monotonic() - begun
        worst = largest_difference(Path(alone.path), Path(again.path))
        curve = max(abs(a - b) for a, b in zip(alone.loss_curve, again.loss_curve, strict=True))
    step_s = alone.seconds / alone.steps
    return {
        "resume_overhead_s": round(both_s - alone_s, 1),
        "resume_bar_s": round(config.checkpoint_steps * step_s + 30, 1),
        "same_adapter_after_resume": worst <= 1e-6 and curve == 0.0,
        "resume_weight_diff": worst,
        "resume_loss_diff": curve,
    }


# --- cost ----------------------------------------------------------------------------------------


def cost(tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of whole runs against their tokens, in one process; the long end by a run's last steps."""
    import torch

    from configs.schema import TrainingSection
    from models.packing import TokenRow
    from training import checkpoint
    from training.sft import train_lora

    rows = [TokenRow(tuple(r["prompt"]), tuple(r["completion"])) for r in make_rows(tokenizer, 240, options.seed)]
    mean = sum(len(row) for row in rows) / len(rows)
    per_step = options.rows_per_step
    model, _ = adapted(options.seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    saves: list[float] = []
    points: list[dict[str, float]] = []

    def timed_save(*given: Any) -> None:
        begun = time.perf_counter()
        save(*given)
        saves.append(time.perf_counter() - begun)

    save, checkpoint.save = checkpoint.save, timed_save

    def run(tokens: int, last: int | None) -> None:
        """A run of so many tokens, whole, or its last `last` steps with a checkpoint that says the rest is done."""
        config = TrainingSection(epochs=tokens / (mean * len(rows)), rows_per_step=per_step, learning_rate=1e-5)
        steps = math.ceil(round(len(rows) * config.epochs) / per_step)
        with tempfile.TemporaryDirectory() as folder:
            work, first = Path(folder), 0
            if last is not None:
                first = steps - last
                optimizer = torch.optim.AdamW(parameters, lr=1e-5, weight_decay=0.0, fused=True)
                for p in parameters:
                    p.grad = torch.zeros_like(p)
                optimizer.step()
                done = checkpoint.Progress(first, [1.0] * first, round(first * per_step * mean), first * 1.0)
                save(work, "cost", done, parameters, optimizer)
            saves.clear()
            begun = time.monotonic()
            done_tokens = round(first * per_step * mean)
            found = train_lora(
                model, rows, config, seed=options.seed, work_dir=work, fingerprint="cost", on_step=lambda _: None
            )
            seconds = time.monotonic() - begun
        seen = found.tokens - done_tokens
        points.append(
            {
                "tokens": tokens,
                "timed_tokens": seen,
                "seconds": seconds * (1.0 if last is None else tokens / seen),
                "checkpoint_share": sum(saves) / seconds,
            }
        )
        say(f"{tokens} tokens: {points[-1]['seconds']:.0f} s ({seen} of them timed)")

    run(1_500, None)  # warms up
    points.clear()
    for tokens, last in ((10_000, None), (30_000, 20), (100_000, 20), (300_000, 20), (1_000_000, 20)):
        run(tokens, last)
    checkpoint.save = save
    logs = [(math.log(p["tokens"]), math.log(p["seconds"])) for p in points]
    slope, cut = statistics.linear_regression([x for x, _ in logs], [y for _, y in logs])
    off = max(abs(math.exp(y - (slope * x + cut)) - 1) for x, y in logs)
    return {
        "cost_exponent": round(slope, 3),
        "cost_fit_error": round(off, 3),
        "cost_tokens": [p["tokens"] for p in points],
        "cost_seconds": [round(p["seconds"], 1) for p in points],
        "checkpoint_share": round(statistics.median(p["checkpoint_share"] for p in points), 4),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The parts asked for."""
    from configs.loader import cache_dir
    from configs.schema import Config
    from models.cache import resolve
    from models.loading import load_base

    path = resolve(BASE, cache_dir(Config())).path
    model, tokenizer = load_base(path)
    parameters = sum(p.numel() for p in {p.data_ptr(): p for p in model.parameters()}.values())
    del model
    found: dict[str, Any] = {"seed": options.seed, "rounds": options.rounds, "rows_per_step": options.rows_per_step}
    if "speed" in options.parts:
        found |= speed(path, tokenizer, parameters, options)
    if "resume" in options.parts:
        found |= resume()
    if "cost" in options.parts:
        found |= cost(tokenizer, options)
    if "plan" in options.parts:
        found |= training_plan.measure_all(tuple(training_plan.SHAPES), say)
    return found


def main() -> None:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--parts", type=lambda text: tuple(text.split(",")), default=PARTS)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    print(json.dumps(measure(options)))


if __name__ == "__main__":
    main()
