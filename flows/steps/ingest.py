"""Pull the labelled feedback of the model up to now: every correction and preference with the request it points to."""

from __future__ import annotations

from configs.errors import StaleTokenError
from data_contracts.digests import digest, set_digest
from flows.files import write_records
from flows.ledger import Output
from flows.run import Run
from store import feedback, incidents, interactions, requests, sources


def ingest(run: Run) -> Output:
    """Write `rows-TOKEN.jsonl` (LabelledRow a line) and say up to which commit it reaches.

    Each claim has a file of its own: a worker that is slower than an erasure cannot put its rows under the next one's.
    """
    with run.context.store.read() as conn:
        watermark = interactions.latest_seq(conn)
        rows = feedback.labelled(conn, run.context.model, upto_seq=watermark)
        found = incidents.all(conn, run.context.model)
        cursors = {row.name: digest(row.cursor)[:16] for row in sources.every(conn, run.context.model) if row.cursor}
    path = run.work_dir / f"rows-{run.ledger.request.token}.jsonl"
    write_records(path, rows)
    try:
        with run.context.store.read() as conn:
            requests.check_token(conn, run.request_id, run.ledger.request.token)
    except StaleTokenError:
        path.unlink(missing_ok=True)
        raise
    run.observer.log(f"Pulled {len(rows)} labelled rows, up to commit {watermark}.")
    return {
        "rows": len(rows),
        "path": str(path),
        "watermark": watermark,
        # How far each outside source had been read: its cursor may be long and name files, so its digest.
        "sources": cursors,
        "digest": set_digest(row.digest for row in rows),
        # Those known now, for teaching and for the regression suite alike: one that is opened while this retrain runs
        # could not be learnt any more, and starts the next.
        "incidents": sorted(incident.id for incident in found),
    }
