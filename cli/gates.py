"""What `tidemill gate` shows and does."""

from __future__ import annotations

from typing import Any

from configs.errors import InputError, NotFoundError
from data_contracts.records import AdapterArtifact, GateDecision, RetrainRequest
from flows.context import Context
from flows.steps.register import arm_of, register_override
from monitoring.rollout_actions import start_rollout
from store import requests, steps


def judged_request(context: Context, number: int | None) -> tuple[RetrainRequest, GateDecision, AdapterArtifact]:
    """A retrain the gate has judged, by its number; None: the last one.

    Raises:
        NotFoundError: no such retrain, or none that got as far as the gate.
    """
    with context.store.read() as conn:
        for request in requests.list_requests(conn, context.model, limit=1000):
            if number not in (None, request.number):
                continue
            gate, train = (steps.get(conn, request.id, name) for name in ("gate", "train"))
            if gate is not None and gate.output and train is not None and train.output:
                decision = GateDecision.model_validate(gate.output["decision"])
                return request, decision, AdapterArtifact.model_validate(train.output["artifact"])
    raise NotFoundError(
        "no such verdict",
        where=context.model,
        expected="a retrain that got as far as the gate",
        found="none" if number is None else f"number {number}",
        fix="see `tidemill status`",
    )


def decision_rows(decision: GateDecision) -> list[dict[str, Any]]:
    """One row a finding."""
    rows = [
        {
            "what": v.suite,
            "against": v.against,
            "n": v.n,
            "value": f"{v.difference:+.3f}",
            "bounds": f"[{v.lower:+.3f}, {v.upper:+.3f}]",
            "verdict": v.verdict,
        }
        for v in decision.suites
    ]
    rows += [
        {
            "what": f"{f.suite}, {f.slice or f.measure.replace('_', ' ')}",
            "against": f.against,
            "n": f.n,
            "value": f"{f.value:+.3f}",
            "bounds": f"[{f.lower:+.3f}, {f.upper:+.3f}]",
            "verdict": f.verdict,
        }
        for f in decision.findings
    ]
    return rows


def override(context: Context, number: int | None, by: str, reason: str) -> dict[str, Any]:
    """Register a candidate the gate stopped, on a person's word, and begin its canary.

    Raises:
        InputError: no name or reason, a name the policy does not let, or a candidate that passed.
        NotFoundError: see `judged_request`.
        AdapterRejectedError: files that are not safe to load.
        ConflictError: another rollout is open.
    """
    if not by.strip() or not reason.strip():
        raise InputError("a name and a reason are needed", where="--by / --reason", expected="text", found="blank")
    request, decision, artifact = judged_request(context, number)
    if decision.accepted:
        raise InputError(
            "this candidate passed the gate: there is nothing to override", where=request.title, found=decision.verdict
        )
    version = register_override(context, artifact, by=by.strip(), reason=reason.strip())
    rollout = start_rollout(
        context.store,
        context.model,
        arm_of(version, artifact),
        cause=f"override of the gate: {request.title}",
        approved_by=by.strip(),
    )
    return {"version": version.name, "verdict": decision.verdict, "by": by.strip(), "rollout": rollout.id}
