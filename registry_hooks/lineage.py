"""Lineage both ways: from a served answer down to the rows that taught it, from a row up to what it taught."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from configs.errors import NotFoundError
from data_contracts.records import BASE_VERSION, RetrainRequest
from store import feedback, interactions, quarantine, requests, rollouts, snapshots, versions


def lineage_of_version(conn: Connection, name: str) -> dict[str, Any]:
    """What made a version: its digests, the gate, the retrain and its causes, the snapshot and the rows in it.

    Raises:
        NotFoundError: no version of that name.
    """
    version = versions.get(conn, name)
    if version is None:
        raise NotFoundError("no such version", where=name, expected="a name such as support-bot@v3")
    request_id = versions.request_of(conn, name)
    request = requests.get(conn, request_id) if request_id else None
    return {
        "version": version.name,
        "adapter": version.adapter_digest,
        "base": version.base_digest,
        "config": version.config_digest,
        "code": version.code_commit,
        "gate": version.gate,
        "approved_by": versions.approved_by(conn, name) or "",
        "registry": version.url,
        "run": version.run_id,
        **_request(request),
        "rollouts": [
            {"id": r.id, "state": r.state, "reason": r.reason}
            for r in rollouts.list_rollouts(conn, version.model)
            if r.candidate.version == name
        ],
        **_snapshot(conn, version.dataset_digest),
    }


def _request(request: RetrainRequest | None) -> dict[str, Any]:
    if request is None:
        return {"retrain": "", "causes": []}
    return {"retrain": f"#{request.number} {request.id}", "causes": [cause.title for cause in request.causes]}


def _snapshot(conn: Connection, digest: str) -> dict[str, Any]:
    snapshot = snapshots.get(conn, digest)
    if snapshot is None:
        return {"dataset": digest, "contract": "", "counts": {}, "rows": [], "held_out_rows": []}
    splits = snapshots.splits(conn, digest)
    return {
        "dataset": digest,
        "contract": snapshot.contract_digest,
        "counts": snapshot.counts,
        "rows": sorted(row for row, split in splits.items() if split == "train"),
        "held_out_rows": sorted(row for row, split in splits.items() if split != "train"),
    }


def lineage_of_row(conn: Connection, row_id: str) -> dict[str, Any]:
    """Where a piece of feedback went: the answer it judged, quarantine, the snapshots it is in, the versions it taught.

    A version is listed as taught only by a row of its training split; held-out rows measured it.

    Raises:
        NotFoundError: no feedback with that id.
    """
    said = feedback.get(conn, row_id)
    if said is None:
        raise NotFoundError("no such feedback", where=row_id)
    served = interactions.get(conn, said.interaction_id)
    held = None
    if served is not None:
        held = next((row for row in quarantine.list_rows(conn, served.model) if row.row_id == row_id), None)
    taught: list[str] = []
    measured: list[str] = []
    found = []
    for snapshot in snapshots.containing(conn, row_id):
        split = snapshots.splits(conn, snapshot.digest).get(row_id, "")
        found.append({"digest": snapshot.digest, "split": split})
        names = [version.name for version in versions.teaching(conn, snapshot.digest)]
        (taught if split == "train" else measured).extend(names)
    return {
        "row": row_id,
        "row_kind": said.kind.value,
        "request": said.interaction_id,
        "answered_by": served.version if served else "",
        "quarantine": f"{held.status}: {held.reason}" if held else "",
        "snapshots": found,
        "taught": list(dict.fromkeys(taught)),
        "measured": list(dict.fromkeys(measured)),
    }


def lineage_of_request(conn: Connection, request_id: str) -> dict[str, Any]:
    """What answered a served request, down to the rows that taught it; or the versions a retrain request made.

    Raises:
        NotFoundError: neither a served request nor a retrain.
    """
    served = interactions.get(conn, request_id)
    if served is None:
        retrain = requests.get(conn, request_id)
        if retrain is None:
            raise NotFoundError("no such request", where=request_id, expected="a served request's id or a retrain's id")
        made = [
            v.name
            for v in versions.list_versions(conn, retrain.model)
            if versions.request_of(conn, v.name) == retrain.id
        ]
        return {**_request(retrain), "status": retrain.status, "outcome": retrain.outcome, "versions": made}
    down: dict[str, Any] = {"version": served.version, "rows": []}
    if served.version != BASE_VERSION and versions.get(conn, served.version) is not None:
        down = lineage_of_version(conn, served.version)
    return {
        "request": served.id,
        "at": served.created_at.isoformat(),
        "arm": served.arm,
        "route_revision": served.route_revision,
        "rollout": served.rollout_id or "",
        "feedback": [said.id for said in feedback.for_interaction(conn, request_id)],
        **down,
    }
