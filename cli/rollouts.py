"""What `tidemill rollout` shows and does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from configs.errors import InputError
from data_contracts.records import Rollout
from flows.context import Context
from monitoring import rollout_actions
from store import rollouts
from store.engine import Store

Action = Callable[[Store, str, str, str], Rollout]
ACTIONS: dict[str, Action] = {
    "promote": rollout_actions.promote,
    "rollback": rollout_actions.rollback,
    "abort": rollout_actions.abort,
}


def rollout_facts(context: Context) -> dict[str, Any]:
    """The open rollout or the last one, with evidence and the controller's history."""
    with context.store.read() as conn:
        rollout = rollouts.current(conn, context.model)
        if rollout is None:
            past = rollouts.list_rollouts(conn, context.model)
            rollout = past[0] if past else None
        if rollout is None:
            return {"rollout": None}
        watermark, state, history = rollouts.state(conn, rollout.id)
    return {
        "rollout": rollout.model_dump(mode="json"),
        "watermark": watermark,
        "evidence": history[-1] if history else {},
        "state": state,
        "history": history,
    }


def rollout_rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Two columns."""
    rollout = facts["rollout"]
    if rollout is None:
        return []
    rows = {
        "rollout": rollout["id"],
        "candidate": rollout["candidate"]["version"],
        "previous": rollout["previous"]["version"],
        "state": rollout["state"],
        "stage": rollout["stage"] + 1,
        "approved by": rollout["approved_by"],
        "reason": rollout["reason"] or "-",
        "folded up to commit": facts["watermark"],
    }
    rows |= {f"evidence: {k}": v for k, v in facts["evidence"].items() if not isinstance(v, (dict, list))}
    return [{"what": key, "is": value} for key, value in rows.items()]


def act(context: Context, action: str, by: str, reason: str) -> dict[str, Any]:
    """Overrule the controller; the name and the reason go into the audit log."""
    if not by.strip() or not reason.strip():
        raise InputError("a name and a reason are needed", where="--by / --reason", expected="text", found="blank")
    rollout = ACTIONS[action](context.store, context.model, by.strip(), reason.strip())
    return {"rollout": rollout.id, "candidate": rollout.candidate.version, "state": rollout.state, "by": by}
