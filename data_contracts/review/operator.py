"""A person's word on held rows, outside the queue: release or drop, with name and reason in the audit log."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from sqlalchemy import Connection

from configs.errors import ConflictError, InputError, NotFoundError
from configs.schema import UNRELEASABLE
from data_contracts.ids import UNNAMED
from data_contracts.records import QuarantinedRow
from data_contracts.redaction import Redactor
from store import audit, person, quarantine, reviews
from store.engine import Store
from store.review_feeds import ROW_KINDS

MAX_REASON = 300


def decide_rows(
    store: Store,
    model: str,
    row_ids: Sequence[str],
    status: Literal["released", "dropped"],
    *,
    by: str,
    reason: str,
    redactor: Redactor | None = None,
) -> int:
    """Release or drop rows, all or none, each with its audit entry; their review items leave the queue.

    The reason is redacted by `redactor`, the installation's; None masks everything.

    Returns:
        how many changed; those that had the status already did not.

    Raises:
        InputError: no name, no reason, or a reason that names who wrote a row or asked.
        NotFoundError: a row is not in this model's quarantine.
        ConflictError: a row cannot be let through whatever a person says.
    """
    said = " ".join(reason.split())
    by, reason = by.strip(), (redactor or Redactor()).redact(said)[0][:MAX_REASON]
    if not by or not reason:
        raise InputError("a name and a reason are needed", where="--by / --reason", expected="text", found="blank")
    wanted = sorted(set(row_ids))
    with store.write() as conn:
        reviews.in_line(conn)
        # Items, then rows, then the log, as a label does: otherwise the two could wait for each other.
        items = reviews.lock_about(conn, ROW_KINDS, wanted)
        rows = [_releasable(conn, model, row_id, status) for row_id in wanted]
        _refuse_names(person.behind(conn, wanted), said)
        changing = [row for row in rows if row.status != status]
        for row in changing:
            quarantine.set_status(conn, row.row_id, status)
        reviews.withdraw(conn, items)
        for row in changing:
            detail = {"from": row.status, "rule": row.reason, "reason": reason}
            audit.append(conn, by, f"quarantine.{status}", row.row_id, detail)
    return len(changing)


def _refuse_names(names: set[str], reason: str) -> None:
    """An erasure does not reach the audit log, so a reason may not hold the name of whom a row is of."""
    for name in names - {UNNAMED}:
        words = re.escape(" ".join(name.casefold().split()))
        if words and re.search(rf"(?<!\w){words}(?!\w)", reason.casefold()):
            raise InputError(
                "the audit log keeps this for ever, so it may not hold the name of whom a row is of",
                where="--reason",
                expected="for example a ticket's number",
                fix="say it without the name",
            )


def _releasable(conn: Connection, model: str, row_id: str, status: str) -> QuarantinedRow:
    row = quarantine.get(conn, model, row_id)
    if row is None:
        raise NotFoundError(
            "The row is not in quarantine.",
            where="quarantine",
            found=row_id,
            fix="`tidemill quarantine list` names them",
        )
    if status == "released" and row.reason == UNRELEASABLE:
        raise ConflictError(
            "an evaluation prompt never teaches, whoever releases it",
            where=row_id,
            expected="a row held for another reason",
            found=row.reason,
        )
    return row
