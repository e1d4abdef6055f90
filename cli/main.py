"""The `tidemill` command. Imports stay light here: every command imports what it needs when it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.contracts_app import contract_app

if TYPE_CHECKING:
    from configs.schema import Config
    from flows.context import Context

app = typer.Typer(
    name="tidemill",
    help="Closes the loop of an LLM in production: feedback in, a gated adapter out, promoted or taken back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
rollout_app = typer.Typer(help="Show the canary and overrule it.", no_args_is_help=True, rich_markup_mode=None)
feedback_app = typer.Typer(help="Bring feedback in and out.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rollout_app, name="rollout")
app.add_typer(feedback_app, name="feedback")
app.add_typer(contract_app, name="contract")

Profile = Annotated[str, typer.Option("--profile", "-p", help="A shipped profile's name or a YAML file.")]
StateOption = Annotated[str | None, typer.Option("--state", help="State directory; wins over the profile's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Option("--by", help="Who takes the responsibility; goes into the audit log.")]
Why = Annotated[str, typer.Option("--reason", help="Why; goes into the audit log.")]


def _load(profile: str, state: str | None) -> Config:
    from configs.loader import load_config

    return load_config(profile, {"state_dir": state} if state else None)


@contextmanager
def _context(profile: str, state: str | None) -> Iterator[Context]:
    """The context of a command: the running stack's resolved profile if there is one, else the profile."""
    from configs.loader import load_config
    from configs.paths import StateDir
    from flows.context import open_context

    config = _load(profile, state)
    resolved = StateDir.of(config).resolved_config
    if resolved.is_file():
        config = load_config(str(resolved))
    context = open_context(config)
    try:
        yield context
    finally:
        context.store.close()


@app.command()
def up(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Start Prefect, MLflow, the gateway and a worker on this machine."""
    from cli.output import print_json, print_line
    from cli.stack import start
    from configs.paths import StateDir

    config = _load(profile, state)
    info = start(config, StateDir.of(config), say=lambda s: print_line(s) if not as_json else None)
    if as_json:
        print_json(info.as_dict())
    else:
        print_line(
            f"Chat and feedback: {info.gateway_url}   Prefect: {info.prefect_ui_url}   MLflow: {info.mlflow_url}"
        )
        print_line(f"State: {info.state_dir}   Stop with: tidemill down --state {info.state_dir}")


@app.command()
def down(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Stop what `up` started."""
    from cli.output import print_json, print_line
    from cli.stack import stop
    from configs.paths import StateDir

    config = _load(profile, state)
    stopped = stop(StateDir.of(config))
    if as_json:
        print_json({"stopped": stopped})
    else:
        print_line(f"{stopped} processes stopped")


@app.command()
def status(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """What runs, what serves, what is being retrained or rolled out."""
    from cli.output import print_json, print_rows
    from cli.status import gather_status, status_rows

    with _context(profile, state) as context:
        facts = gather_status(context)
    if as_json:
        print_json(facts)
    else:
        print_rows(status_rows(facts), f"Tidemill: {facts['model']}")


@app.command()
def doctor(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Say what is wrong and how to mend it; exit 1 if anything is."""
    from cli.doctor import examine
    from cli.output import show

    findings = examine(profile, state)
    rows = [f.as_dict() for f in findings]
    show(rows, rows, as_json=as_json, title="doctor")
    if any(f.state == "wrong" for f in findings):
        raise SystemExit(1)


@app.command()
def demo(
    short: Annotated[bool, typer.Option("--short", help="Acts 1 and 3 on a small budget.")] = False,
    state: StateOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the result as JSON here too.")] = None,
) -> None:
    """Play the whole loop once on a real model: feedback, retrain, canary, drift, rollback."""
    from cli.demo.runner import run_demo
    from configs.paths import StateDir

    config = _load("demo-short" if short else "demo", state)
    result = run_demo(config, StateDir.of(config), short=short, out=out)
    raise SystemExit(result.exit_code)


@app.command()
def deploy(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Make the deployments, schedules and automations on the Prefect server of the profile."""
    import json

    from cli.output import show
    from cli.stack import deploy_flows

    config = _load(profile, state)
    made = json.loads(deploy_flows(config))
    show(made, [{"deployment": k, "id": v} for k, v in made.items()], as_json=as_json, title="deployments")


@app.command()
def retrain(
    profile: Profile = "default",
    state: StateOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained; change nothing.")] = False,
    here: Annotated[bool, typer.Option("--here", help="Run in this process instead of the Prefect worker.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for a retrain now."""
    from cli.output import show
    from cli.retrain import ask_for_retrain, dry_run_rows, plan_retrain

    with _context(profile, state) as context:
        if dry_run:
            plan = plan_retrain(context)
            show(plan, dry_run_rows(plan), as_json=as_json, title="a retrain now would")
            return
        result = ask_for_retrain(context, here=here)
        show(result, [result], as_json=as_json, title="retrain")


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(help="A version (support-bot@v3), a request id or a feedback id.")],
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Follow a version down to the rows that taught it, or a row or request up to the versions."""
    from cli.lineage import find_lineage, lineage_rows
    from cli.output import show

    with _context(profile, state) as context:
        found = find_lineage(context, name)
        show(found, lineage_rows(found), as_json=as_json, title=f"lineage of {name}")


@feedback_app.command("import")
def feedback_import(
    path: Path, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """Import interactions and feedback from JSON Lines; bad lines are named, good ones are kept."""
    from cli.output import print_line, show
    from data_contracts.sources.jsonl import import_jsonl

    with _context(profile, state) as context:
        report = import_jsonl(context.store, context.config, path, context.state.key)
    counts = {"interactions": report.interactions, "feedback": report.feedback, "rejected": len(report.errors)}
    show({**counts, "errors": [str(e) for e in report.errors]}, [counts], as_json=as_json, title=str(path))
    if not as_json:
        for error in report.errors[:20]:
            print_line(f"  {error}")
    if report.errors:
        raise SystemExit(3)


@feedback_app.command("export")
def feedback_export(
    path: Path, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """Export interactions and feedback as JSON Lines."""
    from cli.output import show
    from data_contracts.sources.jsonl import export_jsonl

    with _context(profile, state) as context:
        lines = export_jsonl(context.store, context.config, path)
    show({"lines": lines, "path": str(path)}, [{"lines": lines, "path": str(path)}], as_json=as_json)


@rollout_app.command("show")
def rollout_show(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """The open rollout, or the last one, with its evidence."""
    from cli.output import show
    from cli.rollouts import rollout_facts, rollout_rows

    with _context(profile, state) as context:
        facts = rollout_facts(context)
    show(facts, rollout_rows(facts), as_json=as_json, title="rollout")


def _rollout_action(action: str, profile: str, state: str | None, by: str, reason: str, as_json: bool) -> None:
    from cli.output import show
    from cli.rollouts import act

    with _context(profile, state) as context:
        facts = act(context, action, by, reason)
    show(facts, [facts], as_json=as_json, title=action)


@rollout_app.command("promote")
def rollout_promote(
    by: Who, reason: Why, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """Promote the canary now, on a person's word."""
    _rollout_action("promote", profile, state, by, reason, as_json)


@rollout_app.command("rollback")
def rollout_rollback(
    by: Who, reason: Why, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """Take the canary back; with no rollout open, go back to the previous version."""
    _rollout_action("rollback", profile, state, by, reason, as_json)


@rollout_app.command("abort")
def rollout_abort(
    by: Who, reason: Why, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """End the rollout without a verdict."""
    _rollout_action("abort", profile, state, by, reason, as_json)


def run() -> None:
    """Entry point: errors of ours become one clear message and a stable exit code."""
    from configs.errors import TidemillError

    try:
        app()
    except TidemillError as error:
        from cli.output import fail

        fail(error, as_json="--json" in sys.argv)


if __name__ == "__main__":
    run()
