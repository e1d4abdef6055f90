"""What `tidemill train merge` does: a registered version and its base as one model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import NotFoundError

if TYPE_CHECKING:
    from flows.context import Context


def merge_version(context: Context, name: str, out: Path) -> dict[str, Any]:
    """Write a version as one model to `out` and return its manifest.

    The folder is remembered like an export: an erasure that comes later names it, for a person to delete.

    Raises:
        NotFoundError: no such version.
        AdapterRejectedError: erased rows taught it.
        TidemillError: see `training.merge.merge`.
    """
    from cli.untainted import refuse_erased
    from store import erasure, versions
    from training.merge import check_out, merge

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
    refuse_erased(context, [ref])
    check_out(out)
    with context.store.write() as conn:  # first: an erasure meanwhile must know of the folder
        erasure.record_export(conn, context.model, str(out.resolve()), 0)
    manifest = merge(context.base().path, ref, out, base_reference=context.config.model.base)
    return {"out": str(out), **manifest}
