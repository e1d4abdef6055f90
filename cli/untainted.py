"""Nothing new is made of an adapter that erased rows taught: the copy would outlive the erasure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import AdapterRejectedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_contracts.records import AdapterRef
    from flows.context import Context


def refuse_erased(context: Context, refs: Sequence[AdapterRef]) -> None:
    """Refuse adapters of tainted versions, and those whose snapshots, by their manifests, hold erased training rows.

    Raises:
        AdapterRejectedError: as said; names the versions and snapshots.
    """
    from models.adapters import read_manifest
    from store import erasure

    for ref in refs:
        facts = read_manifest(Path(ref.path))
        datasets = [one for one in (facts.get("dataset_digest"), *facts.get("dataset_digests", ())) if one]
        with context.store.read() as conn:
            why = erasure.taught_erased(conn, [ref.version], [ref.digest, *facts.get("parents", ())], datasets)
        if why:
            raise AdapterRejectedError(
                "this adapter was taught by rows that were erased",
                where=ref.version,
                expected="an adapter no erasure has tainted",
                found="; ".join(why),
                fix="wait for the retrain the erasure asked for, and take its version",
            )
