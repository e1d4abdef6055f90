"""Pull the labelled feedback of the model up to now: every correction and preference with the request it points to, and
thumbs where the profile lets them teach.
"""

from __future__ import annotations

from configs.errors import StaleTokenError
from data_contracts.digests import digest, set_digest
from data_contracts.records import FeedbackKind
from flows.files import write_records
from flows.ledger import Output
from flows.run import Run
from store import feedback, incidents, interactions, requests, sources


def ingest(run: Run) -> Output:
    """Write `rows-TOKEN.jsonl` (LabelledRow a line), `thumbs-TOKEN.jsonl`, and say up to which commit they reach.

    Each claim has a file of its own: a worker that is slower than an erasure cannot put its rows under the next one's.
    """
    model, thumbs_teach = run.context.model, run.thumbs_teach
    with run.context.store.read() as conn:
        watermark = interactions.latest_seq(conn)
        rows = feedback.labelled(conn, model, upto_seq=watermark)
        kinds = (FeedbackKind.THUMB.value,)
        thumbs = feedback.labelled(conn, model, upto_seq=watermark, kinds=kinds) if thumbs_teach else []
        found = incidents.all(conn, run.context.model)
        cursors = {row.name: digest(row.cursor)[:16] for row in sources.every(conn, run.context.model) if row.cursor}
    path = run.work_dir / f"rows-{run.ledger.request.token}.jsonl"
    thumbs_path = path.with_name(path.name.replace("rows-", "thumbs-"))
    write_records(path, rows)
    if thumbs_teach:
        write_records(thumbs_path, thumbs)
    try:
        with run.context.store.read() as conn:
            requests.check_token(conn, run.request_id, run.ledger.request.token)
    except StaleTokenError:
        path.unlink(missing_ok=True)
        thumbs_path.unlink(missing_ok=True)
        raise
    also = f" and {len(thumbs)} thumbs" if thumbs_teach else ""
    run.observer.log(f"Pulled {len(rows)} labelled rows{also}, up to commit {watermark}.")
    return {
        **({"thumbs": len(thumbs), "thumbs_path": str(thumbs_path)} if thumbs_teach else {}),
        "rows": len(rows),
        "path": str(path),
        "watermark": watermark,
        # How far each outside source had been read: its cursor may be long and name files, so its digest.
        "sources": cursors,
        "digest": set_digest(row.digest for row in (*rows, *thumbs)),
        # Those known now, for teaching and for the regression suite alike: one that is opened while this retrain runs
        # could not be learnt any more, and starts the next.
        "incidents": sorted(incident.id for incident in found),
    }
