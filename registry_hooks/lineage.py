"""Lineage both ways: from a served answer down to the rows that taught it, from a row up to what it taught.

Rows are counted; their ids are read only as far as asked (`rows`), so a snapshot of a million costs as much as one of
ten. An erased row, request or incident is a tombstone: its id still says what it taught, and nothing else.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from configs.errors import NotFoundError
from data_contracts.records import BASE_VERSION, RetrainRequest
from store import (
    erasure,
    feedback,
    incidents,
    interactions,
    person,
    quarantine,
    requests,
    rollouts,
    snapshots,
    versions,
)

TRAIN = "train"


def lineage_of_version(conn: Connection, name: str, *, rows: int = 0) -> dict[str, Any]:
    """What made a version: its digests, the gate, the retrain and its causes, the snapshot and how many rows it has.

    Args:
        conn: any connection.
        name: for example `support-bot@v3`.
        rows: at most so many row ids of each kind; 0 gives counts only.

    Raises:
        NotFoundError: no version of that name.
    """
    version = versions.get(conn, name)
    if version is None:
        raise NotFoundError("no such version", where=name, expected="a name such as support-bot@v3")
    request_id = versions.request_of(conn, name)
    request = requests.get(conn, request_id) if request_id else None
    taint = erasure.taint_of(conn, name)
    parent = version.tags.get("tidemill.parent")  # of an adapter at another strength than it was trained
    return {
        "version": version.name,
        "adapter": version.adapter_digest,
        **({"parent": parent, "scale": version.tags.get("tidemill.scale", "")} if parent else {}),
        "base": version.base_digest,
        "config": version.config_digest,
        "code": version.code_commit,
        "gate": version.gate,
        "approved_by": versions.approved_by(conn, name) or "",
        "tainted": f"out of service by {taint.deadline.isoformat(timespec='seconds')}" if taint else "",
        "registry": version.url,
        "run": version.run_id,
        **_request(request),
        "rollouts": [
            {"id": r.id, "state": r.state, "reason": r.reason}
            for r in rollouts.list_rollouts(conn, version.model)
            if r.candidate.version == name
        ],
        **_snapshot(conn, version.dataset_digest, rows),
    }


def _request(request: RetrainRequest | None) -> dict[str, Any]:
    if request is None:
        return {"retrain": "", "causes": []}
    return {"retrain": f"#{request.number} {request.id}", "causes": [cause.title for cause in request.causes]}


def _snapshot(conn: Connection, digest: str, limit: int) -> dict[str, Any]:
    facts = snapshots.facts(conn, digest)
    by_split = snapshots.split_counts(conn, digest)
    found: dict[str, Any] = {
        "dataset": digest,
        "contract": facts["contract_digest"] if facts else "",
        "counts": facts["counts"] if facts else {},
        "train_rows": by_split.get(TRAIN, 0),
        "held_out_rows": sum(n for split, n in by_split.items() if split != TRAIN),
        "erased_rows": erasure.erased_in_snapshot(conn, digest),
    }
    if limit > 0:
        others = [snapshots.some_rows(conn, digest, split, limit) for split in by_split if split != TRAIN]
        found["rows"] = snapshots.some_rows(conn, digest, TRAIN, limit)
        found["rows_held_out"] = sorted(row for part in others for row in part)[:limit]
        shown = [*found["rows"], *found["rows_held_out"]]
        found["rows_erased"] = sorted(erasure.erased_among(conn, shown))
    return found


def _taught_and_measured(conn: Connection, row_ids: list[str]) -> dict[str, Any]:
    """The snapshots that hold any of these rows and what was trained on them.

    A version is listed as taught only by a row of its training split; held-out rows measured it.
    """
    splits: dict[str, set[str]] = {}
    for row_id in row_ids:
        for digest, split in snapshots.splits_of_row(conn, row_id):
            splits.setdefault(digest, set()).add(split)
    taught: list[str] = []
    measured: list[str] = []
    for digest, of in splits.items():
        names = [version.name for version in versions.teaching(conn, digest)]
        (taught if TRAIN in of else measured).extend(names)
    return {
        "snapshots": [{"digest": digest, "split": "+".join(sorted(of))} for digest, of in splits.items()],
        "taught": list(dict.fromkeys(taught)),
        "measured": list(dict.fromkeys(measured)),
        "tainted": sorted(erasure.tainted_among(conn, [*taught, *measured])),
    }


def lineage_of_row(conn: Connection, row_id: str) -> dict[str, Any]:
    """Where a piece of feedback went: the answer it judged, quarantine, the snapshots it is in, the versions it taught.

    Of an erased row, what its tombstone still knows.

    Raises:
        NotFoundError: no feedback with that id, now or before.
    """
    said = feedback.get(conn, row_id)
    if said is None:
        return _tombstone(conn, row_id, "row", [row_id])
    served = interactions.get(conn, said.interaction_id)
    held = quarantine.get(conn, served.model, row_id) if served else None
    return {
        "row": row_id,
        "erased": "",
        "row_kind": said.kind.value,
        "request": said.interaction_id,
        "answered_by": served.version if served else "",
        "quarantine": f"{held.status}: {held.reason}" if held else "",
        **_taught_and_measured(conn, [row_id]),
    }


def _tombstone(conn: Connection, ident: str, kind: str, row_ids: list[str]) -> dict[str, Any]:
    found = erasure.tombstone(conn, ident)
    if found is None or found[0] != kind:
        what = {"row": "feedback", "request": "request", "incident": "incident"}[kind]
        raise NotFoundError(f"no such {what}", where=ident)
    return {kind: ident, "erased": f"by erasure {found[1]}", **_taught_and_measured(conn, row_ids)}


def lineage_of_incident(conn: Connection, ident: str) -> dict[str, Any]:
    """What an incident led to: the retrains it caused, the versions its paraphrases taught.

    Raises:
        NotFoundError: no incident with that id, now or before.
    """
    rows = [erasure.INCIDENT_ROW + ident]
    incident = incidents.get(conn, ident)
    if incident is None:
        return _tombstone(conn, ident, "incident", rows)
    caused = [
        f"#{request.number} {request.status}"
        for request in requests.list_requests(conn, incident.model, limit=1000)
        if any(str(cause.detail.get("incident_id")) == ident for cause in request.causes)
    ]
    return {
        "incident": ident,
        "erased": "",
        "title": incident.title,
        "status": incident.status,
        "severity": incident.severity,
        "request": incident.interaction_id or "",
        "retrains": caused,
        **_taught_and_measured(conn, rows),
    }


def lineage_of_request(conn: Connection, request_id: str, *, rows: int = 0) -> dict[str, Any]:
    """What answered a served request, down to the rows that taught it; or the versions a retrain request made.

    Raises:
        NotFoundError: neither a served request nor a retrain, now or before.
    """
    served = interactions.get(conn, request_id)
    if served is None:
        retrain = requests.get(conn, request_id)
        if retrain is None:
            return _tombstone(conn, request_id, "request", [])
        made = [
            v.name
            for v in versions.list_versions(conn, retrain.model)
            if versions.request_of(conn, v.name) == retrain.id
        ]
        return {**_request(retrain), "status": retrain.status, "outcome": retrain.outcome, "versions": made}
    down: dict[str, Any] = {"version": served.version}
    if served.version != BASE_VERSION and versions.get(conn, served.version) is not None:
        down = lineage_of_version(conn, served.version, rows=rows)
    return {
        "request": served.id,
        "at": served.created_at.isoformat(),
        "arm": served.arm,
        "route_revision": served.route_revision,
        "rollout": served.rollout_id or "",
        "feedback": [said.id for said in feedback.for_interaction(conn, request_id)],
        **down,
    }


def lineage_of_principal(conn: Connection, principal: str, *, rows: int = 0) -> dict[str, Any]:
    """What there is of a person: counts by place, and the versions their rows taught or measured.

    Raises:
        NotFoundError: nothing of that name; after an erasure neither, for no name is kept.
    """
    theirs = person.find(conn, principal)
    if theirs.empty:
        raise NotFoundError("nobody of that name", where=principal)
    found: dict[str, Any] = {
        "principal": principal,
        "counts": person.counts(conn, principal, theirs),
        **_taught_and_measured(conn, theirs.snapshot_rows),
    }
    if rows > 0:
        found |= {"requests": list(theirs.requests[:rows]), "rows": list(theirs.rows[:rows])}
    return found
