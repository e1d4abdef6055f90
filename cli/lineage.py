"""What `tidemill lineage` finds: a version, an adapter, a request, a row, an incident, a retrain or a person."""

from __future__ import annotations

from typing import Any

from configs.errors import NotFoundError
from data_contracts.ids import REQUEST_PREFIX
from flows.context import Context
from registry_hooks import lineage
from store import erasure, feedback, incidents, requests, versions


def find_lineage(context: Context, name: str, *, rows: int = 0) -> dict[str, Any]:
    """Walk from whatever `name` is.

    Args:
        context: the installation.
        name: an id or a name.
        rows: at most so many row ids of each kind; 0 gives counts only.

    Raises:
        NotFoundError: it is none of these.
    """
    with context.store.read() as conn:
        if versions.get(conn, name) is not None:
            return {"kind": "version", **lineage.lineage_of_version(conn, name, rows=rows)}
        by_digest = versions.by_digest(conn, name)
        if by_digest is not None:
            return {"kind": "version", **lineage.lineage_of_version(conn, by_digest.name, rows=rows)}
        gone = erasure.tombstone(conn, name)
        kind = gone[0] if gone else ""
        if kind == "request" or name.startswith(REQUEST_PREFIX) or requests.get(conn, name) is not None:
            return {"kind": "request", **lineage.lineage_of_request(conn, name, rows=rows)}
        if kind == "row" or feedback.get(conn, name) is not None:
            return {"kind": "row", **lineage.lineage_of_row(conn, name)}
        if kind == "incident" or incidents.get(conn, name) is not None:
            return {"kind": "incident", **lineage.lineage_of_incident(conn, name)}
        try:
            return {"kind": "principal", **lineage.lineage_of_principal(conn, name, rows=rows)}
        except NotFoundError:
            pass  # it is none of these: say what was looked for
    raise NotFoundError(
        "nothing of that name",
        where=name,
        expected="a version (support-bot@v3), an adapter digest, the id of a request (chatcmpl-...), of feedback, "
        "of an incident or of a retrain, or a person's name",
        fix="`tidemill status` lists the versions",
    )


def lineage_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Two columns; long lists as counts."""
    rows = []
    for key, value in found.items():
        if isinstance(value, (list, tuple)):
            shown = f"{len(value)}: " + ", ".join(str(v) for v in value[:3]) + (" ..." if len(value) > 3 else "")
        elif isinstance(value, dict):
            shown = ", ".join(f"{k} {v}" for k, v in value.items() if v)
        else:
            shown = str(value)
        rows.append({"what": key, "is": shown})
    return rows
