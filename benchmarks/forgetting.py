"""What is forgotten, with and without mitigation, and does the gate see it? Banking77, five seeds, real training.

    python benchmarks/forgetting.py [--seeds 5] [--decisions 200] [--keep FOLDER]

Each seed draws eight intents, 20 messages of each to teach and 15 other to ask, and trains SmolLM2-135M from the base
(3 epochs at 8e-4): `none` without replay, `chosen` with the shipped recipe (a third of the mix is the base's own
answers over many skills, held by their KL). Asked after each: the unseen messages and the 130 shipped anchors. The
first `--judged` seeds also train `planted` (no replay, five times the rate) and `again` (`chosen` with another seed, so
another order and start: nothing changed). The gate then decides over resampled items of the real results: `planted`
and `chosen` against the base, `again` and `chosen` against each other, both ways.
With `--keep` a run that was stopped goes on where it was. Progress goes to stderr; the last line of stdout is one JSON
object.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training_plan import job_of

from configs.loader import cache_dir
from configs.schema import Config, GateSection, ReplaySection, SuiteRule, TrainingSection
from data_contracts.digests import digest
from data_contracts.records import (
    AdapterArtifact,
    AdapterRef,
    EvalItem,
    EvalReport,
    Message,
    SnapshotRow,
)
from evaluation.gate import Objective
from evaluation.launch import evaluation_job, run_evaluation
from evaluation.resample import resampled_decisions
from evaluation.statistics import required_items
from evaluation.suites import load_suite
from flows.suites import target_items
from models.cache import ResolvedModel, resolve
from training.launch import run_training
from training.replay import answer_prompts

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "banking77"
INTENTS, TAUGHT, ASKED = 8, 20, 15
SYSTEM = "Name the intent of the customer's message."
MARGIN, DISCORDANCE = 0.10, 0.25
GATE = GateSection(
    target=SuiteRule(kind="superiority", margin=MARGIN),
    anchors=SuiteRule(kind="non_inferiority", margin=MARGIN),
    max_discordance=DISCORDANCE,
    power=0.6,
)
RATE = 8e-4
Pair = tuple[str, str]


def say(text: str) -> None:
    """Progress."""
    print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)


def draw(seed: int) -> tuple[list[Pair], list[Pair]]:
    """(taught, asked) messages with their intents."""
    found: list[dict[str, list[str]]] = []
    for name in ("train.csv", "test.csv"):
        by_intent: dict[str, list[str]] = {}
        with (DATA / name).open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                by_intent.setdefault(row["category"], []).append(row["text"].strip())
        found.append(by_intent)
    rng = random.Random(seed)
    intents = sorted(rng.sample(sorted(found[0]), INTENTS))

    def some(split: dict[str, list[str]], count: int) -> list[Pair]:
        return [(text, i.replace("_", " ")) for i in intents for text in rng.sample(sorted(set(split[i])), count)]

    return some(found[0], TAUGHT), some(found[1], ASKED)


def row_of(text: str, answer: str, split: str, source: str = "correction") -> SnapshotRow:
    """One row of the snapshot."""
    messages = (Message(role="system", content=SYSTEM), Message(role="user", content=text))
    ident = digest([split, text, answer])
    return SnapshotRow.model_validate(
        {"digest": ident, "split": split, "source": source, "messages": messages, "completion": answer, "row_id": ident}
    )


def replay_rows(base: ResolvedModel, count: int, root: Path) -> list[SnapshotRow]:
    """The base's own answers, skills in turn."""
    settings = ReplaySection()
    by_skill: dict[str, list[tuple[Message, ...]]] = {}
    for line in (ROOT / "configs" / "prompts" / "replay.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        by_skill.setdefault(entry["skill"], []).append(tuple(Message.model_validate(m) for m in entry["messages"]))
    deepest = max(map(len, by_skill.values()))
    prompts = [group[depth] for depth in range(deepest) for group in by_skill.values() if depth < len(group)][:count]
    answers = answer_prompts(
        base_path=base.path,
        base_digest=base.digest,
        prompts=prompts,
        max_new_tokens=32,
        batch=settings.batch,
        cache_dir=root / "replay",
        work_dir=root / "replay-work",
    )
    return [
        SnapshotRow(
            digest=digest(["replay", [m.model_dump() for m in prompt], answer]),
            split="train",
            source="replay",
            messages=prompt,
            completion=answer,
        )
        for prompt, answer in zip(prompts, answers, strict=True)
        if answer.strip()
    ]


def train(
    name: str, rows: Sequence[SnapshotRow], base: ResolvedModel, root: Path, *, rate: float, seed: int
) -> AdapterRef:
    """An adapter trained from the base; kept under its name."""
    kept = root / f"{name}.artifact.json"
    if not kept.is_file():
        config = TrainingSection(epochs=3, learning_rate=rate, rows_per_step=8, seed=seed)
        job = {**job_of(rows, config, base, root), "out_dir": root / "adapters"}
        made = run_training(job, root / f"work-{name}", lambda _: None)
        kept.write_text(made.model_dump_json(), encoding="utf-8")
        say(f"{name}: {made.tokens} tokens in {made.seconds:.0f} s, last loss {made.loss_curve[-1]:.3f}")
    artifact = AdapterArtifact.model_validate_json(kept.read_bytes())
    return AdapterRef(version=name, digest=artifact.digest, path=artifact.path, base_digest=base.digest)


def compare(
    base: ResolvedModel, champion: AdapterRef | None, candidate: AdapterRef, suites: dict[str, list[EvalItem]],
    root: Path,
) -> EvalReport:  # fmt: skip
    """Per-item results; answers come from the cache where there are some."""
    job = evaluation_job(
        base_path=base.path,
        base_digest=base.digest,
        models={"base": None, "champion": champion, "candidate": candidate},
        suites=suites,
        cache_dir=root.parent / "answers",
    )
    return run_evaluation(job, root / "evaluation", lambda _: None)


def changes(report: EvalReport, suite: str) -> dict[str, float]:
    """Means and flips against the base."""
    before, after = report.scores[suite]["base"].items, report.scores[suite]["candidate"].items
    return {
        "base": round(report.scores[suite]["base"].mean, 4),
        "after": round(report.scores[suite]["candidate"].mean, 4),
        "lost": sum(a.score > b.score for a, b in zip(before, after, strict=True)),
        "gained": sum(a.score < b.score for a, b in zip(before, after, strict=True)),
    }


def blocked(reports: Sequence[EvalReport], objective: Objective, decisions: int, seed: int) -> dict[str, Any]:
    """Share of decisions that are no pass, at the suites' own sizes and at the size the policy recommends."""
    need = required_items(MARGIN, DISCORDANCE, GATE.alpha, 0.975)
    each = -(-decisions // len(reports))
    found: dict[str, Any] = {"recommended_items": need, "decisions": each * len(reports)}
    for word, sizes in (("own_size", {}), ("recommended_size", {"target": need, "anchors": need})):
        stopped = [
            resampled_decisions(report, GATE, objective, count=each, seed=seed + number, sizes=sizes).stopped
            for number, report in enumerate(reports)
        ]
        found[word] = round(statistics.mean(stopped), 4)
    found["anchor_differences"] = [
        round(r.scores["anchors"]["candidate"].mean - r.scores["anchors"]["champion"].mean, 4) for r in reports
    ]
    return found


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """All seeds."""
    base = resolve(Config().model.base, cache_dir(Config()))
    anchors = load_suite(ROOT / "configs" / "suites" / "anchors.jsonl")
    seeds: list[dict[str, Any]] = []
    planted: list[EvalReport] = []
    noop: list[EvalReport] = []
    good: list[EvalReport] = []
    for seed in range(options.seeds):
        taught, asked = draw(seed)
        here = root / f"seed-{seed}"
        rows = [row_of(text, answer, "train") for text, answer in taught]
        replay = replay_rows(base, len(rows) // 2, root)
        targets = target_items([row_of(text, answer, "target") for text, answer in asked], 16)
        suites = {"target": targets, "anchors": anchors}
        found: dict[str, Any] = {"seed": seed}
        reports = {}
        for name, mixed in (("none", rows), ("chosen", [*rows, *replay])):
            adapter = train(name, mixed, base, here, rate=RATE, seed=seed)
            reports[name] = compare(base, None, adapter, suites, here)
            found[name] = {suite: changes(reports[name], suite) for suite in suites}
        kept = found["chosen"]["target"]["after"] - found["chosen"]["target"]["base"]
        plain = found["none"]["target"]["after"] - found["none"]["target"]["base"]
        found["gain_kept"] = round(kept / plain, 4) if plain > 0 else None
        lost = found["none"]["anchors"]["lost"]
        found["flips_ratio"] = round(found["chosen"]["anchors"]["lost"] / lost, 4) if lost else None
        found["ok"] = bool(plain > 0 and lost and found["gain_kept"] >= 0.95 and found["flips_ratio"] <= 0.6)
        good.append(reports["chosen"])
        if seed < options.judged:
            bad = train("planted", rows, base, here, rate=5 * RATE, seed=seed)
            planted.append(compare(base, None, bad, suites, here))
            one = train("chosen", [*rows, *replay], base, here, rate=RATE, seed=seed)
            two = train("again", [*rows, *replay], base, here, rate=RATE, seed=seed + 1000)
            noop += [compare(base, one, two, suites, here), compare(base, two, one, suites, here)]
        seeds.append(found)
        say(json.dumps(found))
    verdicts = {
        "planted": blocked(planted, "superiority", options.decisions, 2026),
        "noop": blocked(noop, "non_inferiority", options.decisions, 2026),
        "chosen": blocked(good, "superiority", options.decisions, 2026),
    }
    return {
        "replay_seeds_ok": sum(one["ok"] for one in seeds),
        "gain_kept": statistics.median(one["gain_kept"] for one in seeds if one["gain_kept"] is not None),
        "flips_ratio": statistics.median(one["flips_ratio"] for one in seeds if one["flips_ratio"] is not None),
        "planted_blocked": verdicts["planted"]["own_size"],
        "noop_blocked": verdicts["noop"]["recommended_size"],
        "verdicts": verdicts,
        "margin": MARGIN,
        "seeds": seeds,
    }


def main() -> int:
    """One JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--judged", type=int, default=2, help="seeds that also train what the gate must block and pass")
    parser.add_argument("--decisions", type=int, default=400)
    parser.add_argument("--keep", type=Path, default=None)
    options = parser.parse_args()
    if not (DATA / "train.csv").is_file():
        say(f"No Banking77 in {DATA}: skipped.")
        return 0
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        print(json.dumps(measure(options, options.keep)))
        return 0
    with tempfile.TemporaryDirectory(prefix="tidemill-forgetting-") as folder:
        print(json.dumps(measure(options, Path(folder))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
