"""Decide: better where it should be, no worse anywhere else. Writes the HTML report and the audit entry."""

from __future__ import annotations

from pathlib import Path

from data_contracts.records import EvalReport, GateDecision
from flows.files import write_text
from flows.ledger import Output
from flows.run import Run
from flows.steps.evaluate import build_suites
from store import audit


def _summary(decision: GateDecision, report_path: Path) -> str:
    lines = [f"# Gate: {decision.verdict}", "", *[f"- {reason}" for reason in decision.reasons], ""]
    lines += ["| suite | against | n | reference | candidate | difference | interval | lost | gained | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {s.suite} | {s.against} | {s.n} | {s.reference_mean:.3f} | {s.candidate_mean:.3f} | {s.difference:+.3f} "
        f"| [{s.lower:+.3f}, {s.upper:+.3f}] | {s.lost} | {s.gained} | {s.verdict} |"
        for s in decision.suites
    ]
    return "\n".join([*lines, "", f"Full report: `{report_path}`"])


def gate(run: Run) -> Output:
    """Return the decision and where the report is."""
    from evaluation.gate import decide
    from evaluation.report import render_html

    report = EvalReport.model_validate_json(Path(run.outputs["evaluate"]["path"]).read_text(encoding="utf-8"))
    decision = decide(report, run.context.config.gate, run.objective)
    html = render_html(
        report,
        decision,
        artifact=run.artifact,
        snapshot=run.snapshot,
        title=run.ledger.request.title,
        items=build_suites(run),
        alpha=run.context.config.gate.alpha,
        choice=run.scale_choice,
    )
    report_path = run.context.state.reports / f"{run.request_id}.html"
    write_text(report_path, html)
    with run.context.store.write() as conn:
        audit.append(
            conn,
            "gate",
            f"gate.{decision.verdict}",
            run.artifact.digest,
            {"request": run.request_id, "policy": decision.policy_digest, "reasons": list(decision.reasons)},
        )
    run.observer.log(f"Gate: {decision.verdict}. " + " ".join(decision.reasons))
    run.observer.markdown("gate", _summary(decision, report_path), f"Gate: {decision.verdict}")
    return {"decision": decision.model_dump(mode="json"), "report": str(report_path)}
