"""What `tidemill status` shows."""

from __future__ import annotations

from typing import Any

from cli.processes import is_alive
from cli.stack import read_stack
from flows.context import Context
from store import audit, drift, gateways, interactions, pointer, requests, rollouts, versions


def gather_status(context: Context) -> dict[str, Any]:
    """Everything, JSON-ready."""
    stack = read_stack(context.state)
    with context.store.read() as conn:
        route = pointer.get(conn, context.model)
        request = requests.current(conn, context.model)
        rollout = rollouts.current(conn, context.model)
        looked = drift.state(conn, context.model)
        return {
            "model": context.model,
            "state_dir": str(context.state.root),
            "urls": stack[0].as_dict() if stack else None,
            "processes": {c.name: ("up" if is_alive(c) else "down") for c in stack[1]} if stack else {},
            "serving": route.model_dump(mode="json"),
            "gateways": len(gateways.live(conn, context.model)),
            "request": request.model_dump(mode="json") if request else None,
            "rollout": rollout.model_dump(mode="json") if rollout else None,
            "versions": [v.name for v in versions.list_versions(conn, context.model)],
            "interactions": interactions.count(conn, context.model),
            "drift": {"reference": looked[1][:12], "watermark": looked[0]} if looked else None,
            "audit_entries": len(audit.entries(conn, limit=100_000)),
        }


def status_rows(facts: dict[str, Any]) -> list[dict[str, str]]:
    """The same as two columns."""
    route, request, rollout = facts["serving"], facts["request"], facts["rollout"]
    canary = route["canary"]
    up = ", ".join(f"{name} {state}" for name, state in facts["processes"].items()) or "not running"
    rows = {
        "stack": up,
        "serving": f"{route['champion']['version']} (revision {route['revision']})",
        "canary": f"{canary['version']} at {route['canary_share']:.0%}" if canary else "none",
        "retrain": f"#{request['number']} {request['status']}" if request else "none open",
        "rollout": f"{rollout['candidate']['version']} {rollout['state']}" if rollout else "none open",
        "versions": ", ".join(facts["versions"]) or "none",
        "interactions": str(facts["interactions"]),
        "drift reference": facts["drift"]["reference"] if facts["drift"] else "not frozen yet",
    }
    if facts["urls"]:
        rows["gateway"] = facts["urls"]["gateway_url"]
        rows["Prefect"] = facts["urls"]["prefect_ui_url"]
        rows["MLflow"] = facts["urls"]["mlflow_url"]
    return [{"what": key, "is": value} for key, value in rows.items()]
