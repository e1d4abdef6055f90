"""Register the adapter in the registry under all its digests, once, and in our own table of versions."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from configs.errors import InputError
from data_contracts.digests import digest
from data_contracts.records import AdapterArtifact, AdapterRef, Arm, ModelVersion
from flows.context import Context
from flows.ledger import Output
from flows.run import Run
from models.adapters import check_adapter
from registry_hooks.registry import RegisterRequest
from store import audit, outbox, versions


def arm_of(version: ModelVersion, artifact: AdapterArtifact) -> Arm:
    """What the serving pointer holds for a version."""
    ref = AdapterRef(version=version.name, digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)
    return Arm(version=version.name, adapter=ref)


def register(run: Run) -> Output:
    """Register the candidate that passed the gate."""
    context, artifact, decision = run.context, run.artifact, run.decision
    means = {s.suite: s.candidate_mean for s in decision.suites}
    # Idempotent by the adapter's digest: a crash between two writes makes no second version.
    version = context.registry.register(
        RegisterRequest(
            model=context.model,
            artifact=artifact,
            gate=decision.verdict,
            run_id=run.outputs["track"].get("run_id") or None,
            tags={
                "tidemill.request": run.request_id,
                "tidemill.policy_digest": decision.policy_digest,
                **_origin(run),
            },
            metrics={f"eval_{suite}": value for suite, value in means.items()},
            report=Path(run.outputs["gate"]["report"]),
        )
    )
    _record(context, version, artifact, request_id=run.request_id, approved_by="gate")
    run.observer.log(f"Registered as {version.name}: {version.url}")
    run.observer.markdown(
        "model-version",
        f"# {version.name}\n\n[Open in MLflow]({version.url})\n\nadapter `{artifact.digest}`",
        version.name,
    )
    return {"version": version.model_dump(mode="json")}


def _origin(run: Run) -> dict[str, str]:
    """Of an adapter at another strength than it was trained: what it was made from, and the strength."""
    if run.artifact.digest == run.trained.digest:
        return {}
    return {"tidemill.parent": run.trained.digest, "tidemill.scale": run.outputs["sweep"]["chosen"]}


def _record(
    context: Context, version: ModelVersion, artifact: AdapterArtifact, *, request_id: str | None, approved_by: str
) -> None:
    with context.store.write() as conn:
        versions.insert(conn, version, adapter_path=artifact.path, request_id=request_id, approved_by=approved_by)
        audit.append(
            conn,
            approved_by,
            "version.registered",
            version.name,
            {"adapter": artifact.digest, "dataset": artifact.dataset_digest, "request": request_id},
        )
        alias = {"model": context.model, "alias": "candidate", "number": version.number}
        outbox.add(conn, "alias", f"candidate:{version.name}", alias)


def check_override(context: Context, subject: str, by: str) -> None:
    """Refuse a name the policy does not let override the gate; the attempt goes into the audit log.

    Raises:
        InputError: the name matches none of `gate.override_by`.
    """
    allowed = context.config.gate.override_by
    if any(fnmatch.fnmatchcase(by, pattern) for pattern in allowed):
        return
    with context.store.write() as conn:
        audit.append(conn, by, "gate.override_refused", subject, {})
    raise InputError(
        "this name may not override the gate",
        where="gate.override_by",
        expected=", ".join(allowed) or "nobody",
        found=by,
        fix="ask one of them, or change the policy",
    )


def register_override(context: Context, artifact: AdapterArtifact, *, by: str, reason: str) -> ModelVersion:
    """Register an adapter that did not pass the gate, on a person's word, recorded by name.

    Args:
        context: the installation.
        artifact: an adapter that passes the loading checks.
        by: who takes the responsibility.
        reason: why.

    Raises:
        InputError: the policy does not let them.
        AdapterRejectedError: the files are not safe to load; no override reaches past that.
    """
    check_override(context, artifact.digest, by)
    ref = AdapterRef(version="override", digest=artifact.digest, path=artifact.path, base_digest=artifact.base_digest)
    check_adapter(ref)
    version = context.registry.register(
        RegisterRequest(
            model=context.model,
            artifact=artifact,
            gate="override",
            tags={"tidemill.override_by": by, "tidemill.override_reason": reason},
        )
    )
    with context.store.write() as conn:
        audit.append(
            conn,
            by,
            "gate.override",
            version.name,
            {"adapter": artifact.digest, "reason": reason, "id": digest([by, reason, artifact.digest])[:16]},
        )
    _record(context, version, artifact, request_id=None, approved_by=by)
    return version
