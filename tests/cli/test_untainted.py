"""Nothing is made of an adapter that erased rows taught."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.merging import merge_version
from cli.scaling import find_adapter, publish_mean, publish_scales
from cli.untainted import refuse_erased
from configs.errors import AdapterRejectedError
from flows.observer import PrintObserver
from store import erasure
from tests.flows.erasure_world import NAME, World, build


def refused(world: World, name: str) -> str:
    """The error, which says why."""
    with pytest.raises(AdapterRejectedError, match="rows that were erased") as caught:
        refuse_erased(world.context, [find_adapter(world.context, name)])
    return str(caught.value.found)


def left_over(world: World, name: str, **facts: object) -> str:
    """An adapter that is no version, by what its manifest says."""
    folder = world.context.state.adapters / (name * 64)
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({"digest": folder.name, "base_digest": "b" * 64, **facts}))
    return folder.name


def test_an_adapter_that_erased_rows_taught_is_refused_and_others_are_not(tmp_path: Path) -> None:
    from flows.erasure import erase

    world = build(tmp_path / "state")
    context = world.context
    refuse_erased(context, [find_adapter(context, name) for name in (world.version, world.clean_version)])
    erase(context, NAME, by="dpo", reason="asked for it", observer=PrintObserver(quiet=True))

    assert re.fullmatch(
        rf"{world.version} is tainted by an erasure; \d training row.* erased", refused(world, world.version)
    )
    refuse_erased(context, [find_adapter(context, world.clean_version)])
    for name, facts in (("5", {"dataset_digest": world.snapshot}), ("6", {"parents": ["2" * 64]})):
        assert f"{world.version} is tainted" in refused(world, left_over(world, name, **facts))
    both = {"dataset_digests": [world.clean_snapshot, world.snapshot]}
    assert world.snapshot[:12] in refused(world, left_over(world, "7", **both))
    refuse_erased(context, [find_adapter(context, left_over(world, "8", dataset_digest=world.clean_snapshot))])

    out = tmp_path / "merged"
    for make in (
        lambda: publish_scales(context, world.version, [0.5]),
        lambda: publish_mean(context, [world.clean_version, world.version], [], 64),
        lambda: merge_version(context, world.version, out),
    ):
        with pytest.raises(AdapterRejectedError, match="rows that were erased"):
            make()
    with context.store.read() as conn:
        assert str(out) not in erasure.known_exports(conn), "nothing was written"
    context.store.close()
