"""Ask base, champion, candidate and the best accepted version the same: held-out feedback, incidents, anchors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.records import AdapterArtifact, AdapterRef, Arm, EvalItem
from flows.best import pinned_best
from flows.files import write_text
from flows.ledger import Output
from flows.run import Run
from flows.suites import anchor_suites, incident_items, probe_suite, scoring_tools, target_items
from store import pointer


def pin_champion(run: Run) -> Output:
    """Note what serves now. A resumed run keeps this: its own canary may have become champion meanwhile."""
    with run.context.store.read() as conn:
        arm = pointer.get(conn, run.context.model).champion
    return arm.model_dump(mode="json")


def ref_of(artifact: AdapterArtifact) -> AdapterRef:
    """An adapter under a name no registry knows yet."""
    return AdapterRef(
        version=f"candidate-{artifact.digest[:12]}",
        digest=artifact.digest,
        path=artifact.path,
        base_digest=artifact.base_digest,
    )


def own_suites(run: Run) -> dict[str, list[EvalItem]]:
    """Suite name -> items as people wrote them; a suite without items is left out."""
    from data_contracts.snapshots import read_rows

    context = run.context
    length = context.config.evaluation.max_new_tokens
    suites = {
        "target": target_items(read_rows(Path(run.snapshot.path), split="target"), length),
        "incidents": incident_items(run.incidents, length, context.config.model.system_prompt),
        **anchor_suites(context),
    }
    return {name: items for name, items in suites.items() if items}


def gating_suites(run: Run) -> dict[str, list[EvalItem]]:
    """What the gate may see: without the items that chose the adapter's strength, if it was chosen.

    Fragility and probes are made of what is left.
    """
    from evaluation.fragility import fragility_items
    from evaluation.halves import without

    context, section, choice = run.context, run.context.config.evaluation, run.scale_choice
    suites = own_suites(run)
    if choice is not None:
        suites = without(suites, choice.selected_on, context.config.gate)
    shipped = anchor_suites(context)  # once: every call reads and checks the files
    anchors = {name: items for name, items in suites.items() if name in shipped}
    made = {
        "fragility": fragility_items(anchors, section.fragility, limit=section.fragility_items),
        "probes": probe_suite(context, run.snapshot, {"target": suites.get("target", []), **anchors})
        if section.probes
        else [],
    }
    return {**suites, **{name: items for name, items in made.items() if items}}


def evaluate(run: Run) -> Output:
    """Write `eval_report.json`; results of unchanged (model, item) pairs come from the cache."""
    from evaluation import fragility, probes
    from evaluation.launch import evaluation_job, run_evaluation

    context = run.context
    base = context.base()
    served = Arm.model_validate(run.outputs["pin_champion"])
    best = pinned_best(run)
    suites, anchors = gating_suites(run), anchor_suites(context)
    job = evaluation_job(
        base_path=base.path,
        base_digest=base.digest,
        models={
            "base": None,
            "champion": served.adapter,
            "candidate": ref_of(run.artifact),
            **({} if best is None else {"best": best.adapter}),
        },
        suites=suites,
        cache_dir=context.state.cache / "evaluation",
        batch=context.config.evaluation.batch,
        dataset_digest=run.snapshot.digest,
        threads=context.config.model.threads,
        best_suites=anchors,
        samples=context.config.evaluation.samples,
        sample_temperature=context.config.evaluation.sample_temperature,
        sampled_suites=("target", *anchors),
        **scoring_tools(context, suites),
    )
    sizes = ", ".join(f"{key} {len(items)}" for key, items in suites.items())
    others = f"champion ({served.version})" + (f", best accepted ({best.version})" if best is not None else "")
    run.observer.log(f"Evaluating base, {others} and candidate on {sizes} items.")

    def on_event(event: dict[str, Any]) -> None:
        run.ledger.check()
        if event.get("event") == "progress":
            note = f"{event['model']} on {event['suite']}, {event['eta_s']:.0f} s to go"
            run.observer.progress("evaluate", event["done"], event["total"], note)

    report = run_evaluation(job, run.work_dir / "evaluation", on_event)
    report = fragility.fold(probes.fold(report, suites.get("probes", ())))
    path = run.work_dir / "eval_report.json"
    write_text(path, report.model_dump_json())
    rows = [
        {"suite": suite, **{model: round(scores.mean, 3) for model, scores in by_model.items()}}
        for suite, by_model in report.scores.items()
    ]
    run.observer.table("evaluation", rows, "Share of items answered as required")
    return {"path": str(path), "champion": served.version, "seconds": report.seconds, "means": rows}
