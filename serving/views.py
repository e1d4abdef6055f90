"""What the gateway tells about itself: the pointer, the open rollout and its evidence, drift findings. Ids and figures
only: no salt (it would let a user choose an arm), no file paths; of users' text only the (redacted) examples of drift.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

import store.drift
import store.gateways
import store.pointer
import store.rollouts
import store.versions
from configs.schema import RolloutSection
from data_contracts.records import Rollout, RoutePointer
from monitoring.canary import CanaryState, evidence
from store.engine import Store


def rollout_view(store_: Store, model: str, config: RolloutSection) -> dict[str, Any]:
    """Body of GET /rollout: pointer, open (else latest) rollout, its figures and their history."""
    with store_.read() as conn:
        pointer = store.pointer.get(conn, model)
        rollouts = store.rollouts.list_rollouts(conn, model, limit=1)
        current = store.rollouts.current(conn, model) or (rollouts[0] if rollouts else None)
        figures, history = _evidence(conn, current, config)
    return {
        "model": model,
        "pointer": _pointer(pointer),
        "rollout": _rollout(current, config) if current else None,
        "evidence": figures,
        "history": history,
    }


def console_view(store_: Store, model: str, config: RolloutSection) -> dict[str, Any]:
    """What the console page shows: `rollout_view`, earlier rollouts, versions, gateways and drift findings."""
    view = rollout_view(store_, model, config)
    with store_.read() as conn:
        view["rollouts"] = [_rollout(r, config) for r in store.rollouts.list_rollouts(conn, model, limit=10)]
        view["versions"] = [
            {"name": v.name, "gate": v.gate, "url": v.url, "approved_by": store.versions.approved_by(conn, v.name)}
            for v in store.versions.list_versions(conn, model)[:10]
        ]
        view["gateways"] = [
            {"id": g.id, "revision": g.revision, "loaded": sorted(g.loaded), "error": g.error}
            for g in store.gateways.live(conn, model)
        ]
        view["drift"] = store.drift.findings(conn, model, limit=5)
    return view


def _evidence(
    conn: Connection, rollout: Rollout | None, config: RolloutSection
) -> tuple[dict[str, Any] | None, list[Any]]:
    if rollout is None:
        return None, []
    _, state, history = store.rollouts.state(conn, rollout.id)
    return (evidence(CanaryState.from_dict(state["canary"]), config) if state else None), history


def _pointer(pointer: RoutePointer) -> dict[str, Any]:
    return {
        "revision": pointer.revision,
        "champion": pointer.champion.version,
        "canary": pointer.canary.version if pointer.canary else None,
        "canary_share": pointer.canary_share,
        "rollout_id": pointer.rollout_id,
    }


def _rollout(rollout: Rollout, config: RolloutSection) -> dict[str, Any]:
    shown = rollout.model_dump(mode="json", exclude={"salt", "candidate", "previous"})
    return {
        **shown,
        "candidate": rollout.candidate.version,
        "previous": rollout.previous.version,
        "stages": list(config.stages),
    }
