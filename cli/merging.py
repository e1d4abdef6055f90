"""What `tidemill train merge` does: a registered version and its base as one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import NotFoundError

if TYPE_CHECKING:
    from flows.context import Context


def merge_version(context: Context, name: str, out: Path) -> dict[str, Any]:
    """Write a version as one model to `out` and return its manifest.

    Raises:
        NotFoundError: no such version.
        TidemillError: see `training.merge.merge`.
    """
    from store import versions
    from training.merge import merge

    with context.store.read() as conn:
        ref = versions.adapter_ref(conn, name)
        known = versions.list_versions(conn, context.model)
    if ref is None:
        raise NotFoundError(
            "no such version",
            where=name,
            expected=", ".join(version.name for version in known[:5]) or "a registered version",
            found="none" if not known else f"{len(known)} versions",
            fix="`tidemill status` shows what serves",
        )
    manifest = merge(context.base().path, ref, out, base_reference=context.config.model.base)
    return {"out": str(out), **manifest}
