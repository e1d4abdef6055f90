"""Decide: better where it should be, no worse anywhere else. Writes the HTML report and the audit entry."""

from __future__ import annotations

from pathlib import Path

from data_contracts.records import EvalReport, GateDecision
from evaluation.rounds import MAX_ROUNDS, Round, round_of
from flows.files import write_text
from flows.ledger import Output
from flows.run import Run
from flows.steps.evaluate import gating_suites
from store import audit, requests, steps


def _summary(decision: GateDecision, report_path: Path) -> str:
    lines = [f"# Gate: {decision.verdict}", "", *[f"- {reason}" for reason in decision.reasons], ""]
    lines += ["| suite | against | n | reference | candidate | difference | interval | lost | gained | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {s.suite} | {s.against} | {s.n} | {s.reference_mean:.3f} | {s.candidate_mean:.3f} | {s.difference:+.3f} "
        f"| [{s.lower:+.3f}, {s.upper:+.3f}] | {s.lost} | {s.gained} | {s.verdict} |"
        for s in decision.suites
    ]
    judged = [f for f in decision.findings if f.limit is not None]
    if judged:
        lines += ["", "| also judged | n | value | bounds | allowed | verdict |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {f.title} | {f.n} | {f.value:+.3f} | [{f.lower:+.3f}, {f.upper:+.3f}] | {f.limit:g} | {f.verdict} |"
        for f in judged
    ]
    return "\n".join([*lines, "", f"Full report: `{report_path}`"])


def _history(run: Run, verdict: str) -> list[Round]:
    """The rounds of this model that were evaluated, oldest first, and this one."""
    found = []
    with run.context.store.read() as conn:
        for request in requests.list_requests(conn, run.context.model, limit=MAX_ROUNDS):
            if request.id != run.request_id:
                done = steps.outputs(conn, request.id)
                if "evaluate" in done:
                    found.append((request.number, request.outcome or request.status, done["evaluate"]["means"]))
    found.append((run.ledger.request.number, f"this one: {verdict}", run.outputs["evaluate"]["means"]))
    return [round_of(f"#{number}", outcome, means) for number, outcome, means in sorted(found, key=lambda r: r[0])]


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
        items=gating_suites(run),
        alpha=run.context.config.gate.alpha,
        choice=run.scale_choice,
        rounds=_history(run, decision.verdict),
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
    warnings = sum(finding.verdict == "warning" for finding in decision.findings)
    if warnings:
        run.observer.log(f"Warning: {warnings} slice(s) lost significantly; the report names them.")
    run.observer.markdown("gate", _summary(decision, report_path), f"Gate: {decision.verdict}")
    return {"decision": decision.without_words.model_dump(mode="json"), "report": str(report_path)}
