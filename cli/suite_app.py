"""`tidemill suite`: make, check, run and freeze suites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import AsJson, Profile, StateOption, load, opened

suite_app = typer.Typer(help="Suites: make, check, run, freeze.", no_args_is_help=True, rich_markup_mode=None)

Suites = Annotated[
    list[str] | None, typer.Argument(help="Files, folders or names; default those the gate uses.", metavar="SUITE")
]


@suite_app.command("new")
def new(
    path: Annotated[Path, typer.Argument(help="The file to make: .yaml or .jsonl.")],
    from_base: Annotated[
        bool, typer.Option("--from-base", help="The base's own answers to prompts, scored by their likelihood.")
    ] = False,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", help="JSON Lines with `id` and `prompt`; default the shipped ones.")
    ] = None,
    slack: Annotated[
        float, typer.Option("--slack", min=0.0, help="Nats per token a model may find the base's answers less likely.")
    ] = 0.5,
    lm_eval: Annotated[
        str | None, typer.Option("--lm-eval", help="The documents of a task or group of lm-eval (extra `lm-eval`).")
    ] = None,
    tasks: Annotated[
        Path | None, typer.Option("--tasks", help="Folder of task files; default those lm-eval ships.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Documents of each task of lm-eval.")] = None,
    few_shot: Annotated[
        int | None, typer.Option("--few-shot", min=0, help="Worked examples before each; default the task's.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Of an answer to a task; default the task's.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Write a suite to begin with, one of the base's own behaviour, or one from a task of lm-eval."""
    from cli.output import show
    from cli.suites import base_suite, example_suite, lm_eval_suite, write_suite

    left_out: dict[str, str] = {}
    if lm_eval is not None:
        if from_base:
            raise typer.BadParameter("give either --from-base or --lm-eval")
        items, left_out = lm_eval_suite(lm_eval, tasks, limit, few_shot, max_new_tokens)
    elif from_base:
        with opened(profile, state) as context:
            items = base_suite(context, prompts, slack, quiet=as_json)
    else:
        items = example_suite()
    facts = {**write_suite(path, items), **left_out}
    show(facts, [facts], as_json=as_json, title="suite new")


@suite_app.command("lint")
def lint(
    suites: Suites = None,
    snapshot: Annotated[
        str | None, typer.Option("--snapshot", help="Also hold references marked `unseen` against this snapshot.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Check suites as the gate would, patterns against texts they could explode on; exit 14 if one is not usable."""
    from cli.output import show
    from cli.suites import lint_suites

    rows = lint_suites(load(profile, state), suites or [], snapshot)
    show(rows, rows, as_json=as_json, title="suite lint")


@suite_app.command("run")
def run(
    suites: Suites = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="base, a version, a folder, or openai:URL#MODEL.")
    ] = "base",
    labels: Annotated[
        Path | None, typer.Option("--labels", help="JSON Lines {suite, id, passed}: what people said of the answers.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Ask a model and print what it passes; exit 14 if a score is missing."""
    from cli.output import print_json, print_rows
    from cli.suites import run_suites, shown_rows

    with opened(profile, state) as context:
        result = run_suites(context, suites or [], model, labels, quiet=as_json)
    if as_json:
        print_json(result.facts)
    else:
        print_rows(shown_rows(result.facts["summary"]), f"{model}")
        for title in ("judge", "agreement"):
            if result.facts[title]:
                rows = result.facts[title] if isinstance(result.facts[title], list) else [result.facts[title]]
                print_rows(rows, title)
    result.measured.check()


@suite_app.command("freeze")
def freeze(
    suites: Suites = None,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="A changed suite becomes the next version.")
    ] = False,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Write NAME.lock.json beside each suite: from then on a change is an error that names the items."""
    from cli.output import show
    from cli.suites import freeze_suites

    rows = freeze_suites(load(profile, state), suites or [], new_version)
    show(rows, rows, as_json=as_json, title="suite freeze")
