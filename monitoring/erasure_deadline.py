"""The end of a tainted version's service: at its deadline the pointer goes to the best untainted version, or the base.

Both the controller beside the gateway and the watch ask, so that neither Prefect nor MLflow is needed for it.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import Connection

import store.audit
import store.erasure
import store.pointer
import store.rollouts
from data_contracts.ids import new_id
from monitoring.rollout_actions import best_untainted, finish, set_champion


def overdue_version(conn: Connection, model: str, now: datetime) -> str | None:
    """The champion, if it is tainted and its deadline has passed."""
    champion = store.pointer.get(conn, model).champion.version
    taint = store.erasure.taint_of(conn, champion)
    return champion if taint is not None and taint.deadline <= now else None


def retire_overdue(conn: Connection, model: str, now: datetime, *, actor: str) -> str | None:
    """Take an overdue champion out of service, in the caller's transaction.

    A rollout that is open compares its canary with this champion; without it the evidence is void, so it is ended and
    its candidate, if untainted, begins anew against the version that serves now.

    Returns:
        The version taken out of service, or None if none was due.

    Raises:
        ConflictError: the pointer was changed meanwhile; nothing was written.
    """
    overdue = overdue_version(conn, model, now)
    if overdue is None:
        return None
    rollout = store.rollouts.current(conn, model)
    if rollout is not None:
        finish(conn, rollout, "aborted", actor=actor, reason=f"{overdue} must leave service: erasure deadline")
    target = best_untainted(conn, model, but=overdue)
    after = set_champion(conn, model, target, reason=f"erasure deadline of {overdue}: {target.version} serves")
    store.audit.append(
        conn, actor, "erasure.version_retired", overdue, {"champion": target.version, "revision": after.revision}
    )
    if rollout is not None and store.erasure.taint_of(conn, rollout.candidate.version) is None:
        again = {"id": new_id(), "state": "pending", "stage": 0, "created_at": now, "previous": target, "reason": ""}
        clean = {"started_at": None, "stage_started_at": None, "latency_limit_ms": None, "request_id": None}
        store.rollouts.create(conn, rollout.model_copy(update={**again, **clean, "salt": secrets.token_hex(16)}))
    return overdue
