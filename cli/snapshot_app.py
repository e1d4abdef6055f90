"""`tidemill snapshot`: list, show, verify and compare the data sets that were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, opened, resolved

snapshot_app = typer.Typer(
    help="The data sets: list, show, verify, compare.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[str, typer.Argument(help="The first digits of a snapshot's digest, or its folder.")]


def _folder(profile: str, state: str | None) -> Path:
    """Where the snapshots are; the files say everything but why a row is gone, so no store is opened (or made)."""
    from configs.paths import StateDir

    return StateDir.of(resolved(profile, state)).snapshots


@snapshot_app.command("list")
def list_(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """All snapshots, newest first."""
    from cli.output import show as print_
    from cli.snapshots import list_rows, list_snapshots

    records = list_snapshots(_folder(profile, state))
    print_([r.model_dump(mode="json", exclude={"row_ids"}) for r in records], list_rows(records), as_json=as_json)


@snapshot_app.command()
def show(name: Name, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """One snapshot's manifest."""
    from cli.output import show as print_
    from cli.snapshots import find_snapshot, show_rows
    from data_contracts.snapshot_files import read_manifest

    record = read_manifest(find_snapshot(_folder(profile, state), name))
    print_(record, show_rows(record), as_json=as_json, title=f"snapshot {record.digest[:12]}")


@snapshot_app.command()
def verify(name: Name, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Read every row and compare them with the digest; exit 8 if they are others."""
    from cli.output import show as print_
    from cli.snapshots import find_snapshot
    from data_contracts.snapshots import verify as verify_

    record = verify_(find_snapshot(_folder(profile, state), name))
    facts = {"digest": record.digest, "verified": True, "rows": sum(record.counts.values()), "erased": record.erased}
    print_({**facts, "can_train": not record.erased}, [facts], as_json=as_json, title="snapshot")


@snapshot_app.command()
def diff(
    a: Name,
    b: Name,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option("--limit", help="Most changed rows to list with --json.")] = 1000,
) -> None:
    """What changed from snapshot A to snapshot B, and why."""
    from cli.output import show as print_
    from cli.snapshots import diff_rows, find_snapshot, why_gone
    from data_contracts.snapshot_diff import diff_snapshots

    root = _folder(profile, state)
    one, two = find_snapshot(root, a), find_snapshot(root, b)
    with opened(profile, state) as context:
        found = diff_snapshots(one, two, why_gone=why_gone(context.store, context.model), limit=limit)
    print_(found, diff_rows(found), as_json=as_json, title=f"{found.a[:12]} -> {found.b[:12]}")
