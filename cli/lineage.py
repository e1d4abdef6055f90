"""What `tidemill lineage` finds: a version, a request id, a feedback id or an adapter digest."""

from __future__ import annotations

from typing import Any

from configs.errors import NotFoundError
from data_contracts.ids import REQUEST_PREFIX
from flows.context import Context
from registry_hooks.lineage import lineage_of_request, lineage_of_row, lineage_of_version
from store import feedback, versions


def find_lineage(context: Context, name: str) -> dict[str, Any]:
    """Walk from whatever `name` is.

    Raises:
        NotFoundError: it is none of these.
    """
    with context.store.read() as conn:
        if versions.get(conn, name) is not None:
            return {"kind": "version", **lineage_of_version(conn, name)}
        by_digest = versions.by_digest(conn, name)
        if by_digest is not None:
            return {"kind": "version", **lineage_of_version(conn, by_digest.name)}
        if name.startswith(REQUEST_PREFIX):
            return {"kind": "request", **lineage_of_request(conn, name)}
        if feedback.get(conn, name) is not None:
            return {"kind": "row", **lineage_of_row(conn, name)}
    raise NotFoundError(
        "nothing of that name",
        where=name,
        expected="a version (support-bot@v3), an adapter digest, a request id (chatcmpl-...) or a feedback id",
        fix="`tidemill status` lists the versions",
    )


def lineage_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Two columns; long lists as counts."""
    rows = []
    for key, value in found.items():
        if isinstance(value, (list, tuple)):
            shown = f"{len(value)}: " + ", ".join(str(v) for v in value[:3]) + (" ..." if len(value) > 3 else "")
        else:
            shown = str(value)
        rows.append({"what": key, "is": shown})
    return rows
