"""Pull the labelled feedback of the model up to now: every correction and preference with the request it points to."""

from __future__ import annotations

from data_contracts.digests import set_digest
from flows.files import write_records
from flows.ledger import Output
from flows.run import Run
from store import feedback, incidents, interactions


def ingest(run: Run) -> Output:
    """Write `rows.jsonl` (LabelledRow a line) and say up to which commit it reaches."""
    with run.context.store.read() as conn:
        watermark = interactions.latest_seq(conn)
        rows = feedback.labelled(conn, run.context.model, upto_seq=watermark)
        found = incidents.all(conn, run.context.model)
    path = run.work_dir / "rows.jsonl"
    write_records(path, rows)
    run.observer.log(f"Pulled {len(rows)} labelled rows, up to commit {watermark}.")
    return {
        "rows": len(rows),
        "path": str(path),
        "watermark": watermark,
        "digest": set_digest(row.digest for row in rows),
        # Those known now, for teaching and for the regression suite alike: one that is opened while this retrain runs
        # could not be learnt any more, and starts the next.
        "incidents": sorted(incident.id for incident in found),
    }
