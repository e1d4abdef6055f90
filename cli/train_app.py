"""`tidemill train`: what a run will cost, what privacy was spent, and a version merged into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, opened

train_app = typer.Typer(
    help="What training will cost; the privacy ledger; merged export.", no_args_is_help=True, rich_markup_mode=None
)

Quick = Annotated[bool, typer.Option("--quick", help="Without timing steps on the base: a rough guess of the time.")]
MemoryLimit = Annotated[float | None, typer.Option("--memory-mb", min=1, help="Plan for a device with this much.")]


@train_app.command()
def plan(
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Digest or folder; default the newest.")] = None,
    quick: Quick = False,
    memory_mb: MemoryLimit = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Rows, tokens, steps, parameters, memory and time of training on a snapshot; exit 13 if it cannot fit."""
    from cli.output import show
    from cli.training_plans import plan_rows_shown, plan_snapshot

    with opened(profile, state) as context:
        facts = plan_snapshot(context, snapshot, quick=quick, limit_mb=memory_mb)
    show(facts, plan_rows_shown(facts), as_json=as_json, title=f"training on {facts['snapshot'][:12]}")


@train_app.command()
def privacy(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """The privacy ledger: what each private retrain spent of the budget of epsilon, and what is left."""
    from cli.output import show
    from cli.privacy import ledger_facts, ledger_rows, ledger_title

    with opened(profile, state) as context:
        facts = ledger_facts(context)
    show(facts, ledger_rows(facts), as_json=as_json, title=ledger_title(facts))


@train_app.command()
def merge(
    version: Annotated[str, typer.Argument(help="A registered version, for example support-bot@v3.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Write base and adapter of a version as one model (safetensors), for engines that take no adapter."""
    from cli.merging import merge_version
    from cli.output import show

    with opened(profile, state) as context:
        made = merge_version(context, version, out)
    shown = [{"out": made["out"], "digest": made["digest"], "files": len(made["files"])}]
    show(made, shown, as_json=as_json, title=f"{version} merged")
