"""A person's word on held rows, outside the queue: release or drop, with name and reason in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from configs.errors import ConflictError, InputError, NotFoundError
from data_contracts.redaction import Redactor
from store import audit, quarantine, reviews
from store.engine import Store
from store.review_feeds import ROW_KINDS

MAX_REASON = 300


def decide_rows(
    store: Store, model: str, row_ids: Sequence[str], status: Literal["released", "dropped"], *, by: str, reason: str
) -> int:
    """Release or drop rows, all or none, each with its audit entry; their review items leave the queue.

    Returns:
        how many changed; those that had the status already did not.

    Raises:
        InputError: no name or no reason.
        NotFoundError: a row is not in this model's quarantine.
        ConflictError: a row cannot be let through whatever a person says.
    """
    by, reason = by.strip(), Redactor().redact(" ".join(reason.split()))[0][:MAX_REASON]
    if not by or not reason:
        raise InputError("a name and a reason are needed", where="--by / --reason", expected="text", found="blank")
    changed = 0
    with store.write() as conn:
        for row_id in dict.fromkeys(row_ids):
            row = quarantine.get(conn, model, row_id)
            if row is None:
                raise NotFoundError(
                    "The row is not in quarantine.",
                    where="quarantine",
                    found=row_id,
                    fix="`tidemill quarantine list` names them",
                )
            if status == "released" and row.reason == "contaminated":
                raise ConflictError(
                    "an evaluation prompt never teaches, whoever releases it",
                    where=row_id,
                    expected="a row held for another reason",
                    found=row.reason,
                )
            if row.status == status:
                continue
            quarantine.set_status(conn, row_id, status)
            items = [item for kind in ROW_KINDS if (item := reviews.find(conn, kind, row_id)) is not None]
            reviews.withdraw(conn, [item.id for item in items])
            detail = {"from": row.status, "rule": row.reason, "reason": reason}
            audit.append(conn, by, f"quarantine.{status}", row_id, detail)
            changed += 1
    return changed
