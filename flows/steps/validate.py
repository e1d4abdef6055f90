"""Hold every row against the contract of its kind; what breaks a rule goes to quarantine with the rule's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_contracts.records import ContractReport, LabelledRow
from flows.files import read_records, write_text
from flows.ledger import Output
from flows.run import Run
from store import quarantine

if TYPE_CHECKING:
    from data_contracts.contract_kinds import KindVerdict


def validate_rows(run: Run) -> Output:
    """Write `contract_report.json` and `.html`, fill the quarantine, show the counts."""
    from data_contracts.contract_kinds import judge_incidents, judge_kinds, judge_rated, together

    rows = read_records(Path(run.outputs["ingest"]["path"]), LabelledRow)
    with run.context.store.read() as conn:
        statuses = quarantine.statuses(conn, run.context.model)
    released = frozenset(row_id for row_id, status in statuses.items() if status == "released")
    contracts = {kind: run.context.resource(path) for kind, path in run.context.config.ingest.by_kind().items()}
    kinds = judge_kinds(rows, contracts, released=released)
    if run.thumbs_teach:
        thumbs = run.thumbs
        kinds.append(judge_rated(thumbs, contracts["thumb"], released=released))
        rows = [*rows, *thumbs]
    report = together(kinds, rows)
    ruled_out = [incident.id for incident in run.incidents if statuses.get(incident.id) == "dropped"]
    # An incident teaches and is a test for ever: one that cannot be learnt would block every retrain from now on.
    incidents = judge_incidents(run.incidents, contracts["incident"], released=released)
    with run.context.store.write() as conn:
        quarantine.put(conn, run.context.model, [*report.quarantined, *incidents.report.quarantined], run.request_id)
    path = run.work_dir / "contract_report.json"
    write_text(path, report.model_dump_json(indent=1))
    _show(run, [*kinds, incidents], report, rows)
    return {
        "path": str(path),
        "html": str(path.with_suffix(".html")),
        "contract": report.contract,
        "contract_digest": report.contract_digest,
        "accepted": len(report.accepted),
        "quarantined": len(report.quarantined),
        "reasons": report.reasons,
        "incidents_refused": sorted({*(row.row_id for row in incidents.report.quarantined), *ruled_out}),
    }


def _show(run: Run, kinds: Sequence[KindVerdict], report: ContractReport, rows: Sequence[LabelledRow]) -> None:
    from data_contracts.contract_report import incident_texts, render_html, row_texts, rule_table

    texts = row_texts(rows) | incident_texts(run.incidents)
    page = render_html(kinds, texts, title=run.ledger.request.title)
    write_text(run.work_dir / "contract_report.html", page)
    run.observer.log(
        f"Great Expectations over contract {report.contract}: {len(report.accepted)} of {report.rows} rows accepted, "
        f"{len(report.quarantined)} quarantined."
    )
    refused = [row for kind in kinds if kind.kind == "incident" for row in kind.report.quarantined]
    for row in refused:
        run.observer.log(f"Incident {row.row_id} neither teaches nor measures until it is released: {row.detail}.")
    for note in (note for kind in kinds for note in kind.report.warnings):
        run.observer.log(f"Contract: {note}")
    run.observer.table("contract", rule_table(kinds), "Rows that break a rule of their contract")
