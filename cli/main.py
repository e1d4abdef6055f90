"""The `tidemill` command. Imports stay light here: every command imports what it needs when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.contracts_app import contract_app
from cli.erase_app import erase, retention_app
from cli.eval_app import eval_app
from cli.feedback_app import feedback_app
from cli.gate_app import gate_app
from cli.options import AsJson, Profile, StateOption, Who, Why, load, opened
from cli.quarantine_app import quarantine_app
from cli.review_app import review_app
from cli.snapshot_app import snapshot_app
from cli.suite_app import suite_app
from cli.train_app import train_app

app = typer.Typer(
    name="tidemill",
    help="Closes the loop of an LLM in production: feedback in, a gated adapter out, promoted or taken back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
rollout_app = typer.Typer(help="Show the canary and overrule it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(rollout_app, name="rollout")
app.add_typer(feedback_app, name="feedback")
app.add_typer(review_app, name="review")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(contract_app, name="contract")
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(train_app, name="train")
app.add_typer(gate_app, name="gate")
app.add_typer(suite_app, name="suite")
app.add_typer(eval_app, name="eval")
app.add_typer(retention_app, name="retention")
app.command("erase")(erase)


@app.command()
def up(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Start Prefect, MLflow, the gateway and a worker on this machine."""
    from cli.output import print_json, print_line
    from cli.stack import start
    from configs.paths import StateDir

    config = load(profile, state)
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

    config = load(profile, state)
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

    with opened(profile, state) as context:
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

    config = load("demo-short" if short else "demo", state)
    result = run_demo(config, StateDir.of(config), short=short, out=out)
    raise SystemExit(result.exit_code)


@app.command()
def deploy(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Make the deployments, schedules and automations on the Prefect server of the profile."""
    import json

    from cli.output import show
    from cli.stack import deploy_flows

    config = load(profile, state)
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

    with opened(profile, state) as context:
        if dry_run:
            plan = plan_retrain(context)
            show(plan, dry_run_rows(plan), as_json=as_json, title="a retrain now would")
            return
        result = ask_for_retrain(context, here=here)
        show(result, [result], as_json=as_json, title="retrain")


@app.command()
def lineage(
    name: Annotated[str, typer.Argument(help="A version, or the id of a request, feedback, incident; or a person.")],
    rows: Annotated[int, typer.Option("--rows", min=0, help="List so many row ids of each kind, not only counts.")] = 0,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Follow a version down to the rows that taught it, or a row, request, incident or person up to the versions."""
    from cli.lineage import find_lineage, lineage_rows
    from cli.output import show

    with opened(profile, state) as context:
        found = find_lineage(context, name, rows=rows)
        show(found, lineage_rows(found), as_json=as_json, title=f"lineage of {name}")


@rollout_app.command("show")
def rollout_show(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """The open rollout, or the last one, with its evidence."""
    from cli.output import show
    from cli.rollouts import rollout_facts, rollout_rows

    with opened(profile, state) as context:
        facts = rollout_facts(context)
    show(facts, rollout_rows(facts), as_json=as_json, title="rollout")


def _rollout_action(action: str, profile: str, state: str | None, by: str, reason: str, as_json: bool) -> None:
    from cli.output import show
    from cli.rollouts import act

    with opened(profile, state) as context:
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
