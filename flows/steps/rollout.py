"""Start the canary and wait for its verdict. The controller beside the gateway decides; this only asks and shows."""

from __future__ import annotations

import time

from data_contracts.records import OPEN_ROLLOUT_STATES, Rollout, utc_now
from flows.ledger import Output
from flows.run import Run
from flows.steps.register import arm_of
from monitoring.rollout_actions import abort, start_rollout
from store import gateways, incidents, rollouts

POLL_S = 1.0


def begin_rollout(run: Run) -> Output:
    """Create the rollout row, once per request."""
    store = run.context.store
    with store.read() as conn:
        existing = rollouts.by_request(conn, run.request_id)
    if existing is None:
        existing = start_rollout(
            store,
            run.context.model,
            arm_of(run.version, run.artifact),
            cause=run.ledger.request.title,
            request_id=run.request_id,
        )
    run.observer.log(f"Canary of {run.version.name} asked for; stages {list(run.context.config.rollout.stages)}.")
    return {"rollout_id": existing.id}


def _show(run: Run, rollout: Rollout, last: tuple[str, int] | None) -> tuple[str, int]:
    now = (rollout.state, rollout.stage)
    if now != last:
        stages = run.context.config.rollout.stages
        done = len(stages) + 1 if rollout.state == "promoted" else rollout.stage + (rollout.state == "running")
        run.observer.progress("rollout", done, len(stages) + 1, f"{rollout.state}, stage {rollout.stage + 1}")
        run.observer.log(f"Rollout {rollout.state}, stage {rollout.stage + 1} of {len(stages)}.")
    return now


def await_rollout(run: Run) -> Output:
    """Wait until the rollout is closed.

    The wait ends by itself: the controller closes a rollout at its horizon, and one that no gateway has begun by then
    is aborted here, so that it does not hold up every later retrain.
    """
    rollout_id = run.outputs["begin_rollout"]["rollout_id"]
    last: tuple[str, int] | None = None
    while True:
        run.ledger.check()
        with run.context.store.read() as conn:
            rollout = rollouts.get(conn, rollout_id)
            if rollout is None:
                return {"state": "aborted", "reason": "the rollout's row is gone"}
            evidence = rollouts.state(conn, rollout_id)
        last = _show(run, rollout, last)
        if rollout.state not in OPEN_ROLLOUT_STATES:
            break
        if rollout.state == "pending" and _nobody_comes(run, rollout):
            reason = "no gateway began the canary within the horizon"
            rollout = abort(run.context.store, run.context.model, "retrain", reason)
            break
        time.sleep(POLL_S)
    if rollout.state == "promoted":
        close_incidents(run)
    run.observer.markdown(
        "rollout",
        f"# {run.version.name}: {rollout.state}\n\n{rollout.reason}\n\nFolded up to commit {evidence[0]}.",
        f"Rollout {rollout.state}",
    )
    return {"state": rollout.state, "reason": rollout.reason}


def _nobody_comes(run: Run, rollout: Rollout) -> bool:
    waited = (utc_now() - rollout.created_at).total_seconds()
    if waited < run.context.config.rollout.horizon_s:
        return False
    with run.context.store.read() as conn:
        return not gateways.live(conn, run.context.model)


def close_incidents(run: Run) -> None:
    """Incidents this retrain answered for are fixed, its causes and those that came in before it read its rows; they
    stay in the regression suite.
    """
    answered = {incident.id for incident in run.incidents}
    with run.context.store.write() as conn:
        for incident in incidents.all(conn, run.context.model, status="open"):
            if incident.id in answered:
                incidents.set_status(conn, incident.id, "fixed")
