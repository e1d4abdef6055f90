"""What strength buys: one forgetful adapter at five scales, the choice on one half, the gate on the other.

    make bench-scales          (or: python benchmarks/scales.py --seed 3)

Trains once (12 intents of Banking77, 25 corrections each, no replay, 8e-4), asks base and every scale 180 unseen test
messages and the shipped anchors, chooses by the flow's own rule on the selection half, and gates the choice on the
other half. Progress and a table go to stderr; the last line is JSON. About ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import loop_banking77
from scales_adapter import make_work, train

from configs.loader import cache_dir, load_config, resource_path
from configs.schema import GateSection, SuiteRule
from data_contracts.records import AdapterArtifact, AdapterRef, EvalItem, EvalReport
from evaluation.choice import choose_among, measure
from evaluation.gate import decide
from evaluation.halves import make_halves, split
from evaluation.suites import item_digest, load_suite
from evaluation.sweep import run_candidates
from models.cache import ResolvedModel, resolve
from training.intruders import reduce_intruders
from training.scales import publish_scaled

# Half of 130 anchors can decide a margin of 15 points at these rates, and no finer one.
POLICY = GateSection(
    anchors=SuiteRule(kind="non_inferiority", margin=0.15, max_discordance=0.15),
    target=SuiteRule(kind="superiority"),
    power=0.8,
)
GAIN_KEPT = 0.95
SCALES = (0.3, 0.5, 0.7, 0.85, 1.0)
BATCH = 48
Suites = Mapping[str, Sequence[EvalItem]]


def say(text: str) -> None:
    """Progress goes to stderr."""
    print(text, file=sys.stderr, flush=True)


def candidates_of(
    artifact: AdapterArtifact, base: ResolvedModel, root: Path, intruders: Sequence[tuple[int, float]]
) -> tuple[dict[str, AdapterRef], dict[str, float], dict[str, int]]:
    """(candidate -> adapter, candidate -> scale, intruders found by setting)."""

    def ref(digest: str, path: Path) -> AdapterRef:
        return AdapterRef(version=digest[:12], digest=digest, path=str(path), base_digest=artifact.base_digest)

    trained = ref(artifact.digest, Path(artifact.path))
    refs = {f"{scale:g}": ref(*made) for scale, made in publish_scaled(trained, root, SCALES).items()}
    scales = {f"{scale:g}": scale for scale in SCALES}
    found = {}
    for top_k, threshold in intruders:
        began = time.monotonic()
        digest, path, count = reduce_intruders(trained, base.path, root, top_k=top_k, threshold=threshold)
        name = f"intruders {top_k}/{threshold:g}"
        say(f"{name}: {count} found in {time.monotonic() - began:.0f} s")
        found[name] = count
        if count:
            refs[name], scales[name] = ref(digest, path), 1.0
    return refs, scales, found


def table(reports: Mapping[str, EvalReport], scales: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Target, gain, flips and slack of each candidate on one set of items."""
    rows = {}
    for name, report in reports.items():
        point = measure(name, scales[name], report, POLICY, "superiority")
        rows[name] = {
            "target": round(point.target or 0.0, 4),
            "anchors": round(report.scores["anchors"]["candidate"].mean, 4),
            "lost": point.lost,
            "gained": point.gained,
            "slack": round(point.slack, 4),
        }
    return rows


def part(report: EvalReport, items: Suites) -> EvalReport:
    """A report on some of its items."""
    kept = {name: {item.id for item in chosen} for name, chosen in items.items()}
    scores = {
        name: {
            model: one.model_copy(update={"items": tuple(i for i in one.items if i.item_id in kept[name])})
            for model, one in by_model.items()
        }
        for name, by_model in report.scores.items()
    }
    return report.model_copy(update={"scores": scores})


def joined(one: Mapping[str, EvalReport], other: Mapping[str, EvalReport]) -> dict[str, EvalReport]:
    """Reports on both halves together."""
    made = {}
    for name, report in one.items():
        scores = {
            suite: {
                model: part.model_copy(update={"items": part.items + other[name].scores[suite][model].items})
                for model, part in by_model.items()
            }
            for suite, by_model in report.scores.items()
        }
        made[name] = report.model_copy(update={"scores": scores})
    return made


def resplit(whole: Mapping[str, EvalReport], scales: Mapping[str, float], suites: Suites, count: int) -> dict[str, Any]:
    """The rule over many other halves of the same items: what it chooses and what that is worth on the other half."""
    chosen: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    optimism, kept, lost, of_lost = [], [], 0, 0
    for number in range(count):
        parts = {name: split(items, f"resplit {number}") for name, items in suites.items()}
        halves = [{name: pair[side] for name, pair in parts.items()} for side in (0, 1)]
        on = [{name: part(report, half) for name, report in whole.items()} for half in halves]
        choice = choose_among(on[0], scales, POLICY, "superiority", GAIN_KEPT, {})
        point = choice.point
        if point is None:
            raise AssertionError("a sweep always chooses")
        here, full = on[1][point.name], on[1]["1"]
        after = measure(point.name, point.scale, here, POLICY, "superiority")
        trained = measure("1", 1.0, full, POLICY, "superiority")
        chosen[point.name] += 1
        passed["chosen"] += decide(here, POLICY, "superiority").verdict == "pass"
        passed["as trained"] += decide(full, POLICY, "superiority").verdict == "pass"
        optimism.append((point.gained - point.lost) / point.anchors - (after.gained - after.lost) / after.anchors)
        kept.append((after.gain or 0.0) / max(trained.gain or 0.0, 1e-9))
        lost, of_lost = lost + after.lost, of_lost + trained.lost
    return {
        "splits": count,
        "chosen": dict(chosen.most_common()),
        "passed": dict(passed),
        "gain_kept": round(sum(kept) / count, 4),
        "flips_ratio": round(lost / max(of_lost, 1), 4),
        "optimism_points": round(100 * sum(optimism) / count, 2),
    }


def run(seed: int, root: Path, adapter: Path | None, intruders: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Train, sweep, choose, gate; returns the figures."""
    config = load_config("default", {})
    base = resolve(config.model.base, cache_dir(config))
    work = make_work(seed)

    def on_train(event: dict[str, Any]) -> None:
        if event.get("event") == "progress" and event["step"] % 20 == 0:
            say(f"  step {event['step']} of {event['steps']}, loss {event['loss']:.3f}")

    if adapter is None:
        say(f"Training on {len(work.rows)} rows, no replay.")
        artifact = train(work, base.path, root, base_digest=base.digest, base_ref=config.model.base, on_event=on_train)
    else:
        artifact = AdapterArtifact.model_validate_json(adapter.read_text(encoding="utf-8"))
    refs, scales, found = candidates_of(artifact, base, root / "adapters", intruders)
    suites = {"target": list(work.target), "anchors": load_suite(resource_path("suites/anchors.jsonl"))}
    halves = make_halves(suites, POLICY, "superiority")
    if halves.note:
        raise SystemExit(halves.note)

    def ask(which: str, items: Suites) -> dict[str, EvalReport]:
        began = time.monotonic()
        made = run_candidates(
            base.path,
            base.digest,
            {"base": None, "champion": None},
            refs,
            items,
            batch=BATCH,
            cache_dir=root / "answers" / which,
        )
        sizes = ", ".join(f"{name} {len(part)}" for name, part in items.items())
        say(f"{which}: {len(refs)} candidates and the base on {sizes} in {time.monotonic() - began:.0f} s")
        return made

    began = time.monotonic()
    selection = ask("selection half", halves.selection)
    sweep_s = time.monotonic() - began
    digests = {name: [item_digest(item) for item in items] for name, items in halves.selection.items()}
    choice = choose_among(selection, scales, POLICY, "superiority", GAIN_KEPT, digests)
    say(choice.reason)
    gating = ask("gating half", halves.gating)
    decisions = {name: decide(report, POLICY, "superiority").verdict for name, report in gating.items()}
    rows = {"selection": table(selection, scales), "gating": table(gating, scales)}
    for half, by_name in rows.items():
        say(f"{half} half: target | anchors | lost | gained | slack | gate")
        for name, row in by_name.items():
            mark = "  <- chosen" if name == choice.chosen else ""
            say(f"  {name:>18}: " + " | ".join(f"{v}" for v in row.values()) + f" | {decisions[name]}{mark}")
    chosen, whole = rows["gating"][choice.chosen], rows["gating"]["1"]
    base_target = gating["1"].scores["target"]["base"].mean
    return {
        "chosen": choice.chosen,
        "reason": choice.reason,
        "on_front": bool(choice.point and choice.point.front),
        "front": [p.name for p in choice.points if p.front],
        "gate_of_chosen": decisions[choice.chosen],
        "gate_of_unscaled": decisions["1"],
        "gain_kept": round((chosen["target"] - base_target) / max(whole["target"] - base_target, 1e-9), 4),
        "flips_ratio": round(chosen["lost"] / max(whole["lost"], 1), 4),
        "sizes": {half: {k: len(v) for k, v in items.items()} for half, items in vars(halves).items() if items},
        "rows": rows,
        "gate": decisions,
        "resplit": resplit(joined(selection, gating), scales, suites, 200),
        "intruders_found": found,
        "train_s": artifact.seconds,
        "sweep_s": round(sweep_s, 1),
    }


def main() -> int:
    """Run and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=loop_banking77.DATA, help="the folder of Banking77")
    parser.add_argument("--root", type=Path, help="keep adapters and answers here instead of a temporary folder")
    parser.add_argument("--adapter", type=Path, help="an artifact (JSON) trained before, instead of training")
    parser.add_argument("--intruders", action="append", default=[], metavar="K/THRESHOLD", help="try this as well")
    arguments = parser.parse_args()
    loop_banking77.DATA = arguments.data
    if not (arguments.data / "train.csv").is_file():
        print(json.dumps({"skipped": f"Banking77 is not at {arguments.data}"}))
        return 0
    pairs = [(int(k), float(t)) for k, t in (text.split("/") for text in arguments.intruders or ["10/0.5"])]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tidemill-bench-", ignore_cleanup_errors=True) as folder:
        figures = run(arguments.seed, arguments.root or Path(folder), arguments.adapter, pairs)
    print(json.dumps({**figures, "seed": arguments.seed, "wall_s": round(time.monotonic() - began, 1)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
