"""What `tidemill train scales` and `train soup` do: adapters made from published ones, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from data_contracts.records import AdapterRef
    from flows.context import Context

MIN_PREFIX = 6


def find_adapter(context: Context, name: str) -> AdapterRef:
    """An adapter by a registered version's name, or by its digest or the first six or more characters of it.

    Raises:
        NotFoundError: none.
        InputError: several begin like this.
    """
    from data_contracts.records import AdapterRef
    from models.adapters import read_manifest
    from store import versions

    with context.store.read() as conn:
        ref = versions.adapter_ref(conn, name)
        known = [version.name for version in versions.list_versions(conn, context.model)]
    if ref is not None:
        return ref
    root: Path = context.state.adapters
    digests = sorted(p.name for p in root.iterdir() if not p.name.startswith(".")) if root.is_dir() else []
    found = [one for one in digests if len(name) >= MIN_PREFIX and one.startswith(name)]
    if len(found) > 1:
        raise InputError(
            "several adapters begin like this", where=name, found=", ".join(found[:5]), fix="give more of the digest"
        )
    if not found:
        raise NotFoundError(
            "no such adapter",
            where=name,
            expected=f"a version ({', '.join(known[:5]) or 'none is registered yet'}) or a digest below {root}",
            found=f"{len(digests)} adapters",
        )
    folder = root / found[0]
    base = str(read_manifest(folder).get("base_digest", ""))
    return AdapterRef(version=found[0][:12], digest=found[0], path=str(folder), base_digest=base)


def publish_scales(context: Context, name: str, scales: Sequence[float]) -> dict[str, Any]:
    """Publish an adapter at scales.

    Raises:
        NotFoundError, InputError: see `find_adapter`; a scale that is not above 0 and at most 1.
        AdapterRejectedError: the adapter does not pass its checks, or erased rows taught it.
    """
    from cli.untainted import refuse_erased
    from training.scales import publish_scaled

    ref = find_adapter(context, name)
    refuse_erased(context, [ref])
    made = publish_scaled(ref, context.state.adapters, sorted(set(scales)))
    adapters = [{"scale": scale, "digest": digest, "path": str(path)} for scale, (digest, path) in made.items()]
    return {"parent": ref.digest, "adapters": adapters}


def publish_mean(context: Context, names: Sequence[str], weights: Sequence[float], max_rank: int) -> dict[str, Any]:
    """Publish the weighted mean of adapters.

    Raises:
        NotFoundError, InputError: see `find_adapter` and `training.scales.soup`.
        AdapterRejectedError: an adapter does not pass its checks, or erased rows taught it.
    """
    from cli.untainted import refuse_erased
    from models.adapters import read_manifest
    from training.scales import publish_soup

    refs = [find_adapter(context, name) for name in names]
    refuse_erased(context, refs)
    digest, path = publish_soup(refs, context.state.adapters, list(weights) or None, max_rank=max_rank)
    facts = read_manifest(path)
    kept = ("parents", "weights", "rank", "truncated")
    return {"digest": digest, "path": str(path), **{key: facts[key] for key in kept}}
