"""Try the trained adapter at several strengths on one half of the suites; the chosen one alone goes to the gate.

No training is done: an adapter at scale l is the same weights with another alpha (`training/scales.py`). What was
chosen, on which items and why is in `sweep.json` of the retrain's folder; every candidate stays published, by its
digest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, AdapterRef, Arm
from evaluation.choice import ScaleChoice, choose_among
from evaluation.halves import Halves, make_halves
from evaluation.launch import evaluation_job, run_sweep
from evaluation.suites import item_digest
from flows.best import pinned_best
from flows.files import write_text
from flows.ledger import Output
from flows.run import Run
from flows.steps.evaluate import own_suites, ref_of
from flows.suites import anchor_suites, scoring_tools
from models.adapters import read_manifest

INTRUDERS = "1, intruders reduced"


def _name(scale: float) -> str:
    """A scale as people write it, in full: two scales never share a name."""
    return repr(float(scale)).removesuffix(".0")


def _publish(run: Run) -> tuple[dict[str, AdapterRef], dict[str, float]]:
    """(candidate -> adapter, candidate -> scale), all published under their own digests."""
    from training.scales import publish_scaled

    trained, root = run.trained, run.context.state.adapters
    settings = run.context.config.evaluation
    made = publish_scaled(ref_of(trained), root, settings.scales)
    refs = {_name(scale): ref_of(_artifact(trained, *where)) for scale, where in made.items()}
    scales = {_name(scale): scale for scale in made}
    if settings.reduce_intruders:
        run.observer.log("Looking for intruder dimensions in the adapter.")
        done = _reduced(run, refs, root)
        refs, scales = {**refs, **done}, {**scales, **dict.fromkeys(done, 1.0)}
    return refs, scales


def _reduced(run: Run, refs: dict[str, AdapterRef], root: Path) -> dict[str, AdapterRef]:
    """The adapter with its intruders weakened, if it has any that the scales do not already hold."""
    from models.jobs import run_job

    job = {
        "adapter": ref_of(run.trained).model_dump(mode="json"),
        "base_path": str(run.context.base().path),
        "out_dir": str(root),
        "threads": run.context.config.model.threads,
    }
    final = run_job("training.intruders", job, run.work_dir / "intruders", lambda _: run.ledger.check())
    if not final["found"] or final["digest"] in {ref.digest for ref in refs.values()}:
        run.observer.log("No intruder dimension was found.")
        return {}
    run.observer.log(f"{final['found']} intruder dimensions weakened.")
    return {INTRUDERS: ref_of(_artifact(run.trained, final["digest"], Path(final["path"])))}


def _artifact(trained: AdapterArtifact, name: str, path: Path) -> AdapterArtifact:
    """The trained artifact in another form: the same training and data, other weights."""
    if name == trained.digest:
        return trained
    alpha = float(read_manifest(path)["alpha"])
    return trained.model_copy(update={"digest": name, "path": str(path), "alpha": alpha})


def _try(run: Run, halves: Halves) -> tuple[ScaleChoice, dict[str, AdapterRef], float]:
    context = run.context
    refs, scales = _publish(run)
    base = context.base()
    served = Arm.model_validate(run.outputs["pin_champion"])
    best = pinned_best(run)
    job = evaluation_job(
        base_path=base.path,
        base_digest=base.digest,
        models={
            "base": None,
            "champion": served.adapter,
            **({} if best is None else {"best": best.adapter}),
        },
        suites=halves.selection,
        cache_dir=context.state.cache / "evaluation",
        batch=context.config.evaluation.batch,
        threads=context.config.model.threads,
        best_suites=anchor_suites(context),
        **scoring_tools(context, halves.selection),
    )
    sizes = ", ".join(f"{key} {len(items)}" for key, items in halves.selection.items())
    run.observer.log(f"Trying {len(refs)} strengths of the adapter on the selection half: {sizes} items.")

    def on_event(event: dict[str, Any]) -> None:
        run.ledger.check()
        if event.get("event") == "progress":
            done = event["number"] - 1 + event["done"] / max(event["total"], 1)
            run.observer.progress("sweep", done, event["of"], f"{event['candidate']} on {event['suite']}")

    reports = run_sweep(job, refs, run.work_dir / "sweep", on_event)
    choice = choose_among(
        reports,
        scales,
        context.config.gate,
        run.objective,
        context.config.evaluation.scale_gain_kept,
        {name: [item_digest(item) for item in items] for name, items in halves.selection.items()},
    )
    return choice, refs, sum(report.seconds for report in reports.values())


def sweep(run: Run) -> Output:
    """Publish the strengths, measure them on the selection half, choose one."""
    halves = make_halves(own_suites(run), run.context.config.gate, run.objective)
    artifact, seconds = run.trained, 0.0
    if halves.note:
        choice = ScaleChoice(reason=f"The adapter goes to the gate as it was trained: {halves.note}.")
    else:
        choice, refs, seconds = _try(run, halves)
        ref = refs[choice.chosen]
        artifact = _artifact(run.trained, ref.digest, Path(ref.path))
    path = run.work_dir / "sweep.json"
    write_text(path, choice.model_dump_json())
    run.observer.log(f"Strength: {choice.reason}")
    run.observer.table(
        "sweep", [_row(choice, point.name) for point in choice.points], "Strengths on the selection half"
    )
    return {
        "path": str(path),
        "choice_digest": digest(choice),
        "chosen": choice.chosen,
        "scale": choice.point.scale if choice.point else 1.0,
        "reason": choice.reason,
        "artifact": artifact.model_dump(mode="json"),
        "seconds": seconds,
    }


def _row(choice: ScaleChoice, name: str) -> dict[str, Any]:
    point = next(p for p in choice.points if p.name == name)
    return {
        "scale": point.name,
        "target": "-" if point.target is None else round(point.target, 3),
        "anchors lost": point.lost,
        "gained": point.gained,
        "within the margins": point.qualifies,
        "front": point.front,
        "chosen": name == choice.chosen,
    }
