"""How fast are log-likelihoods beside lm-eval on the same items and model, and what does an unchanged candidate cost?

    python benchmarks/evaluation_speed.py [--seed 0] [--rounds 5] [--items 120]

Items: messages of Banking77, each asked with four of its intents as choices (`../shared/data/banking77`; the shipped
anchors' choices where it is absent). lm-eval runs in `.venvs/lm-eval`, made at first use, at the batch size that is
fastest here; both keep their model loaded, and take turns. `scores_equal`: summed log-likelihoods within 1e-4 each.
`cached_rerun_s`: the whole evaluation job of a candidate on the shipped anchors, run a second time. Progress goes to
stderr; the last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from configs.loader import cache_dir
from configs.schema import Config
from data_contracts.records import AdapterRef, EvalItem
from models.cache import ResolvedModel, resolve

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "banking77"
PEER = "lm-eval[hf]==0.4.13"
BATCHES = (1, 4, 8, 16, 32, 64)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def make_items(count: int, seed: int) -> list[EvalItem]:
    """Four-choice items."""
    from evaluation.suites import load_suite

    if not (DATA / "test.csv").is_file():
        anchors = load_suite(ROOT / "configs" / "suites" / "anchors.jsonl")
        return [item for item in anchors if item.scorer == "choice"][:count]
    rng = random.Random(seed)
    with (DATA / "test.csv").open(encoding="utf-8", newline="") as handle:
        rows = [(row["text"], row["category"].replace("_", " ").lower()) for row in csv.DictReader(handle)]
    intents = sorted({intent for _, intent in rows})
    items = []
    for number, (text, intent) in enumerate(rng.sample(rows, count)):
        choices = [*rng.sample([other for other in intents if other != intent], 3), intent]
        rng.shuffle(choices)
        asked = f"{text}\nWhat is this message about: {', '.join(choices[:3])} or {choices[3]}?"
        items.append(
            EvalItem.model_validate(
                {
                    "id": f"b{number}",
                    "suite": "choices",
                    "messages": [{"role": "user", "content": asked}],
                    "reference": intent,
                    "scorer": "choice",
                    "choices": choices,
                }
            )
        )
    return items


def peer_python() -> Path:
    """The peer's environment, made at first use."""
    folder = ROOT / ".venvs" / "lm-eval"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        say(f"installing {PEER} into .venvs/lm-eval")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        for what in (["torch==2.13.0"], [PEER, "transformers==5.23.0"]):
            subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True, stdout=sys.stderr)
        (folder / ".installed").touch()
    return python


class LmEval:
    """The peer's process."""

    def __init__(self, base: Path, pairs: list[list[list[int]]], folder: Path) -> None:
        (folder / "requests.json").write_text(json.dumps(pairs), encoding="utf-8")
        self._child = subprocess.Popen(
            [str(peer_python()), str(Path(__file__).with_name("peer_lm_eval.py")), base, folder / "requests.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "peer.log").open("w"),
            text=True,
            env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE", "HOME": str(folder)},
        )
        self._log = folder / "peer.log"
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit(f"the peer ended:\n{self._log.read_text()[-3000:]}")

    def score(self, batch: int, count: int) -> dict[str, Any]:
        """Seconds and values of the first `count` requests."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps([batch, count]) + "\n")
        self._child.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


def beside_lm_eval(base: ResolvedModel, items: list[EvalItem], rounds: int) -> dict[str, Any]:
    """Both on the same items, taking turns."""
    from models.likelihood import reference_nll
    from models.loading import load_base
    from models.prompts import completion_ids, prompt_ids

    model, tokenizer = load_base(base.path)
    talks = [item.messages for item in items for _ in item.choices]
    choices = [choice for item in items for choice in item.choices]
    lengths = [len(completion_ids(tokenizer, choice)) for choice in choices]
    pairs = [
        [list(prompt_ids(tokenizer, talk)), list(completion_ids(tokenizer, choice))]
        for talk, choice in zip(talks, choices, strict=True)
    ]
    ours_s: list[float] = []
    theirs_s: list[float] = []
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        peer = LmEval(base.path, pairs, Path(folder))
        some = min(len(pairs), 96)
        peer.score(8, some)
        tried = {batch: peer.score(batch, some)["seconds"] for batch in BATCHES}
        best = min(tried, key=lambda batch: tried[batch])
        say("lm-eval, seconds by batch size: " + ", ".join(f"{b}: {s:.1f}" for b, s in tried.items()))
        reference_nll(model, tokenizer, talks[:16], choices[:16])
        for number in range(rounds):
            begun = time.perf_counter()
            values = reference_nll(model, tokenizer, talks, choices)
            ours_s.append(time.perf_counter() - begun)
            found = peer.score(best, len(pairs))
            theirs_s.append(found["seconds"])
            sums = [-value * length for value, length in zip(values, lengths, strict=True)]
            worst = max(worst, max(abs(a - b) for a, b in zip(sums, found["values"], strict=True)))
            say(f"round {number + 1}: {ours_s[-1]:.1f} s, lm-eval {theirs_s[-1]:.1f} s")
        peer.close()
    return {
        "items": len(items),
        "lm_eval_batch": best,
        "items_s": round(len(items) / statistics.median(ours_s), 1),
        "items_s_lm_eval": round(len(items) / statistics.median(theirs_s), 1),
        "speedup_vs_lm_eval": round(statistics.median(b / a for a, b in zip(ours_s, theirs_s, strict=True)), 2),
        "speedup_vs_lm_eval_worst": round(min(b / a for a, b in zip(ours_s, theirs_s, strict=True)), 2),
        "scores_equal": worst <= 1e-4,
        "largest_score_difference": worst,
    }


def cached_rerun(base: ResolvedModel) -> dict[str, Any]:
    """A whole evaluation of a fresh adapter on the shipped anchors, and the same once more."""
    from configs.schema import TrainingSection
    from evaluation.launch import evaluation_job, run_evaluation
    from evaluation.suites import load_suite
    from models.loading import load_base
    from training.lora import add_lora, publish

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model, _ = load_base(base.path)
        facts = {"base_digest": base.digest, "rank": 16, "alpha": 32.0}
        digest, path = publish(
            add_lora(model, TrainingSection(), seed=1), root / "adapters", base_reference=base.reference, manifest=facts
        )
        del model
        candidate = AdapterRef(version="candidate", digest=digest, path=str(path), base_digest=base.digest)
        job = evaluation_job(
            base_path=base.path,
            base_digest=base.digest,
            models={"base": None, "champion": None, "candidate": candidate},
            suites={"anchors": load_suite(ROOT / "configs" / "suites" / "anchors.jsonl")},
            cache_dir=root / "cache",
        )
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            run_evaluation(job, root / "work", lambda _: None)
            seconds.append(round(time.perf_counter() - begun, 1))
    return {"first_run_s": seconds[0], "cached_rerun_s": seconds[1]}


def main() -> None:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=120)
    options = parser.parse_args()
    base = resolve(Config().model.base, cache_dir(Config()))
    found = {"seed": options.seed, **beside_lm_eval(base, make_items(options.items, options.seed), options.rounds)}
    print(json.dumps({**found, **cached_rerun(base)}))


if __name__ == "__main__":
    main()
