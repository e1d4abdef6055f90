"""What `tidemill retrain` does: record a manual cause, or say what a retrain now would do."""

from __future__ import annotations

from typing import Any

from data_contracts.records import Cause, utc_now
from flows import triggers
from flows.context import Context
from flows.observer import PrintObserver
from store import requests


def ask_for_retrain(context: Context, *, here: bool) -> dict[str, Any]:
    """Record the request; the watch schedule (or, with `here`, this process) starts it."""
    request, created = triggers.record(context, Cause(kind="manual", at=utc_now(), detail={"title": "manual"}))
    current, waiting_for = triggers.update(context)
    outcome = ""
    if here and current is not None and current.status == "ready":
        from flows.pipeline import run_retrain

        outcome = run_retrain(context, request.id, PrintObserver())
    with context.store.read() as conn:
        latest = requests.get(conn, request.id) or request
    return {
        "request": latest.id,
        "title": latest.title,
        "status": latest.status,
        "new": created,
        "waiting_for": waiting_for,
        "outcome": outcome,
    }


def plan_retrain(context: Context) -> dict[str, Any]:
    """Rows, rejects by reason, replay, time and memory of a retrain now; nothing is written.

    The contract and the curation run for real on the rows of the store; tokens are estimated at four characters each.
    """
    from data_contracts.contract_kinds import judge_incidents, judge_kinds, together
    from data_contracts.curation import incident_rows
    from flows.curating import curated as curated_rows
    from flows.suites import evaluation_prompts, open_incidents
    from store import feedback, quarantine
    from training.plan import estimate

    with context.store.read() as conn:
        rows = feedback.labelled(conn, context.model)
        statuses = quarantine.statuses(conn, context.model)
    released = {row_id for row_id, status in statuses.items() if status == "released"}
    contracts = {kind: context.resource(path) for kind, path in context.config.ingest.by_kind().items()}
    report = together(judge_kinds(rows, contracts, released=frozenset(released)), rows)
    accepted = set(report.accepted)
    kept = [r for r in rows if r.id in accepted and statuses.get(r.id) != "dropped"]
    protected = evaluation_prompts(context)
    with context.store.read() as conn:
        curated = curated_rows(context, conn, kept, released, protected, utc_now())
    known = open_incidents(context.store, context.model)
    learnable = set(judge_incidents(known, contracts["incident"], released=frozenset(released)).report.accepted)
    found = [incident for incident in known if incident.id in learnable]
    teaching = [*curated.train, *incident_rows(found, protected, context.config.curation, context.redactor)]
    rejects = dict(report.reasons)
    for row in curated.left_out:
        rejects[row.reason] = rejects.get(row.reason, 0) + 1
    share = context.config.replay.share
    replay = round(len(teaching) * share / max(1e-9, 1 - share))
    characters = sum(len(r.completion) + sum(len(m.content) for m in r.messages) for r in teaching)
    system = len(context.config.model.system_prompt) * len(teaching)
    tokens = round((characters + system) / 4 * (1 + replay / max(1, len(teaching))))
    return {
        "labelled_rows": len(rows),
        "train_rows": len(teaching),
        "replay_rows": replay,
        "target_items": len(curated.target),
        "rejects": dict(sorted(rejects.items())),
        "estimate": estimate(len(teaching) + replay, tokens, context.config.training),
    }


def dry_run_rows(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """The plan as two columns."""
    flat = {k: v for k, v in plan.items() if not isinstance(v, dict)}
    flat |= {f"left out: {k}": v for k, v in plan["rejects"].items()}
    flat |= {f"estimate: {k}": v for k, v in plan["estimate"].items()}
    return [{"what": key, "is": value} for key, value in flat.items()]
