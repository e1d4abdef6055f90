"""Hold every row against the contract; what breaks a rule goes to quarantine with the rule's name."""

from __future__ import annotations

from pathlib import Path

from data_contracts.records import ContractReport, LabelledRow
from flows.files import read_records, write_text
from flows.ledger import Output
from flows.run import Run
from store import quarantine


def validate_rows(run: Run) -> Output:
    """Write `contract_report.json`, fill the quarantine, show the counts."""
    from data_contracts.expectations import validate

    rows = read_records(Path(run.outputs["ingest"]["path"]), LabelledRow)
    with run.context.store.read() as conn:
        statuses = quarantine.statuses(conn, run.context.model)
    released = frozenset(row_id for row_id, status in statuses.items() if status == "released")
    contract = run.context.resource(run.context.config.ingest.contract)
    report: ContractReport = validate(rows, contract, released=released)
    with run.context.store.write() as conn:
        quarantine.put(conn, run.context.model, report.quarantined, run.request_id)
    path = run.work_dir / "contract_report.json"
    write_text(path, report.model_dump_json(indent=1))
    run.observer.log(
        f"Great Expectations over contract {report.contract}: {len(report.accepted)} of {report.rows} rows accepted, "
        f"{len(report.quarantined)} quarantined."
    )
    run.observer.table(
        "contract",
        [{"reason": reason, "rows": count} for reason, count in report.reasons.items()],
        "Rows quarantined by the contract",
    )
    return {
        "path": str(path),
        "contract": report.contract,
        "contract_digest": report.contract_digest,
        "accepted": len(report.accepted),
        "quarantined": len(report.quarantined),
        "reasons": report.reasons,
    }
