"""`tidemill train`: what a run will cost, what privacy was spent; a version merged, at other strengths, or averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, opened
from configs.limits import MAX_RANK

train_app = typer.Typer(
    help="What training will cost; the privacy ledger; merged export, scales and soups.",
    no_args_is_help=True,
    rich_markup_mode=None,
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


@train_app.command()
def scales(
    adapter: Annotated[str, typer.Argument(help="A registered version, or an adapter's digest (or its beginning).")],
    scale: Annotated[list[float] | None, typer.Option("--scale", help="Above 0, at most 1; again for more.")] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Publish an adapter at other strengths, without training; default 0.3 to 1. Nothing is registered or served."""
    from cli.output import show
    from cli.scaling import publish_scales
    from training.scales import SCALES

    with opened(profile, state) as context:
        made = publish_scales(context, adapter, scale or SCALES)
    shown = [{"scale": one["scale"], "digest": one["digest"]} for one in made["adapters"]]
    show(made, shown, as_json=as_json, title=f"{adapter} at other strengths")


@train_app.command()
def soup(
    adapters: Annotated[list[str], typer.Argument(help="Two or more adapters of one base: versions or digests.")],
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="One for each, in order; default alike.")
    ] = None,
    max_rank: Annotated[
        int, typer.Option("--max-rank", min=1, max=MAX_RANK, help="Ranks beyond it are cut off.")
    ] = MAX_RANK,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Publish the weighted mean of several adapters as one. Nothing is registered or served."""
    from cli.output import show
    from cli.scaling import publish_mean

    with opened(profile, state) as context:
        made = publish_mean(context, adapters, weight or [], max_rank)
    lines = [
        {"what": key, "is": "\n".join(map(str, one)) if isinstance(one, list) else one} for key, one in made.items()
    ]
    show(made, lines, as_json=as_json, title="soup")
