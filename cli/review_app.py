"""`tidemill review`: the review queue in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Profile, StateOption, Who, opened

if TYPE_CHECKING:
    from data_contracts.review.desk import Receipt
    from store.reviews import Role

review_app = typer.Typer(help="Look at what needs a person's eye.", no_args_is_help=True, rich_markup_mode=None)
gold_app = typer.Typer(help="Items whose right verdict is known.", no_args_is_help=True, rich_markup_mode=None)
review_app.add_typer(gold_app, name="gold")

Labeller = Annotated[str, typer.Option("--by", help="Your name as a labeller.")]
Token = Annotated[str, typer.Option("--token", help="The token `next` gave.")]
Verdict = Annotated[str, typer.Option("--verdict", help="accept, reject or correct.")]
Text = Annotated[str, typer.Option("--text", help="The right answer; only with correct. `-` reads standard input.")]
Severity = Annotated[str, typer.Option("--severity", help="Of an incident; a word of the guidelines.")]
RootCause = Annotated[str, typer.Option("--root-cause", help="Of an incident; a word of the guidelines.")]
Note = Annotated[str, typer.Option("--note", help="For the next reader.")]
Kinds = Annotated[list[str] | None, typer.Option("--kind", help="Only this kind; may be given more than once.")]


@review_app.command("next")
def next_item(
    by: Labeller,
    adjudicate: Annotated[bool, typer.Option("--adjudicate", help="Items whose labels differ.")] = False,
    kind: Kinds = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Lend and show the next item; on a terminal, go on asking and recording until nothing waits."""
    from cli.output import print_json, print_line
    from cli.review import desk_of, label_loop, task_text

    role: Role = "adjudicate" if adjudicate else "label"
    with opened(profile, state) as context:
        desk = desk_of(context)
        if not as_json and sys.stdin.isatty():
            done = label_loop(desk, by, input, print_line, role=role, kinds=tuple(kind or ()))
            print_line(f"{done} labelled")
            return
        task = desk.next(by, role=role, kinds=tuple(kind or ()))
    if as_json:
        print_json({"task": task})
    elif task is None:
        print_line("Nothing waits for you.")
    else:
        print_line(task_text(task))
        print_line(f"\nlent until {task.until:%H:%M:%S} UTC, token {task.token}")


def _answer(verdict: str, text: str, severity: str, root_cause: str, note: str) -> Any:
    from pydantic import ValidationError

    from configs.errors import InputError
    from data_contracts.records import ReviewAnswer

    if text == "-":
        text = sys.stdin.read()
    said = {"verdict": verdict, "text": text, "severity": severity, "root_cause": root_cause, "note": note}
    try:
        return ReviewAnswer.model_validate(said)
    except ValidationError as error:
        place = str(error.errors()[0]["loc"][0])
        expected = "accept, reject or correct" if place == "verdict" else error.errors()[0]["msg"]
        raise InputError(
            "the answer is not usable", where=place, expected=expected, found=ascii(said[place])
        ) from error


def _record(
    profile: str, state: str | None, item: str, by: str, token: str, answer: Any, role: Role, as_json: bool
) -> None:
    from cli.output import show
    from cli.review import desk_of

    with opened(profile, state) as context:
        receipt: Receipt = desk_of(context).label(item, by, token, answer, role=role)
    facts = {"item": receipt.item, "result": "recorded" if receipt.new else "recorded before"}
    show(facts, [facts], as_json=as_json)


@review_app.command("label")
def label(
    item: str,
    verdict: Verdict,
    by: Labeller,
    token: Token,
    text: Text = "",
    severity: Severity = "",
    root_cause: RootCause = "",
    note: Note = "",
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Answer an item that `next` lent you."""
    answer = _answer(verdict, text, severity, root_cause, note)
    _record(profile, state, item, by, token, answer, "label", as_json)


@review_app.command("adjudicate")
def adjudicate(
    item: str,
    verdict: Verdict,
    by: Labeller,
    token: Token,
    text: Text = "",
    severity: Severity = "",
    root_cause: RootCause = "",
    note: Note = "",
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Decide an item whose labels differ, lent by `next --adjudicate`."""
    answer = _answer(verdict, text, severity, root_cause, note)
    _record(profile, state, item, by, token, answer, "adjudicate", as_json)


@review_app.command("list")
def list_items(
    kind: Kinds = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", help="open, labelled, adjudicate, done, withdrawn; or all.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """The queue in the order it is handed out; gold items only with `--kind gold`."""
    from cli.output import show
    from cli.review import list_rows
    from data_contracts.records import OPEN_REVIEW_STATUSES

    wanted = tuple(status or OPEN_REVIEW_STATUSES)
    with opened(profile, state) as context:
        rows = list_rows(context, tuple(kind or ()), () if "all" in wanted else wanted)
    show(rows, rows, as_json=as_json, title="review queue")


@review_app.command("show")
def show_item(item: str, profile: Profile = "default", state: StateOption = None) -> None:
    """One item with its labels, as JSON, for the operator: labellers should not see the others' labels."""
    from cli.output import print_json
    from cli.review import item_facts

    with opened(profile, state) as context:
        print_json(item_facts(context, item))


@review_app.command("stats")
def stats(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """The queue, and per labeller and rule: gold agreement and Krippendorff's alpha with its number of units."""
    from cli.output import show
    from cli.review import stats_rows
    from data_contracts.review.stats import review_stats

    with opened(profile, state) as context, context.store.read() as conn:
        found = review_stats(conn, context.model)
    show(found.as_dict(), stats_rows(found), as_json=as_json, title="review")


@review_app.command("feed")
def feed(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """Fill the queue now; the watch does it on its schedule."""
    from cli.output import show
    from flows.review_feed import feed as run

    with opened(profile, state) as context:
        result = run(context)
    facts = {**result.added, "withdrawn": result.withdrawn}
    show({"added": result.added, "withdrawn": result.withdrawn}, [facts], as_json=as_json, title="review feed")


@review_app.command("withdraw")
def withdraw(
    items: list[str], by: Who, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False
) -> None:
    """Take items out of the queue, gold ones too."""
    from cli.output import show
    from cli.review import desk_of

    with opened(profile, state) as context:
        changed = desk_of(context).withdraw(items, by)
    show({"withdrawn": changed}, [{"withdrawn": changed}], as_json=as_json)


@gold_app.command("add")
def gold_add(
    path: Annotated[Path, typer.Argument(help="JSON Lines; the form is in data_contracts/review/gold.py.")],
    by: Who,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Add gold items from a file; bad lines are named, good ones are kept."""
    from cli.output import print_line, show
    from cli.review import desk_of
    from data_contracts.review.gold import add_gold_file

    with opened(profile, state) as context:
        report = add_gold_file(desk_of(context), path, by)
    counts = {"gold": len(report.ids), "rejected": len(report.errors)}
    show({**counts, "ids": report.ids, "errors": report.errors}, [counts], as_json=as_json, title=str(path))
    if report.errors:
        for error in () if as_json else report.errors[:20]:
            print_line(f"  {error}")
        raise SystemExit(3)


Target = Annotated[
    str, typer.Option("--to", help="A Label Studio address (http://...), or a file for its JSON import.")
]
Origin = Annotated[str, typer.Option("--from", help="A Label Studio address (http://...), or a JSON export of it.")]
Title = Annotated[str | None, typer.Option("--project", help="Title of the project; default `Tidemill MODEL`.")]


def _is_address(place: str) -> bool:
    return place.startswith(("http://", "https://"))


@review_app.command("push")
def push(
    to: Target,
    by: Who,
    project: Title = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most items.")] = 200,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Lend waiting items to Label Studio; the token is read from TIDEMILL_LABEL_STUDIO_TOKEN."""
    from contextlib import closing

    from cli.output import show
    from cli.review import desk_of
    from data_contracts.review.exchange import push as push_to
    from data_contracts.review.exchange import push_file
    from data_contracts.review.label_studio_http import HttpLabelStudio

    with opened(profile, state) as context:
        desk = desk_of(context)
        facts: dict[str, Any]
        if _is_address(to):
            with closing(HttpLabelStudio(to)) as studio:
                projects, pushed = push_to(desk, studio, project or f"Tidemill {desk.model}", by, limit=limit)
            facts = {"pushed": len(pushed.items), "to": to, "projects": projects}
        else:
            facts = {"pushed": len(push_file(desk, Path(to), by, limit=limit).items), "to": to}
    show(facts, [{**facts}], as_json=as_json, title="review push")


@review_app.command("pull")
def pull(
    origin: Origin,
    by: Who,
    project: Title = None,
    labeller: Annotated[
        list[str] | None, typer.Option("--labeller", help="ID=NAME: a Label Studio user id and the labeller it is.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Record what was labelled in Label Studio; safe to repeat. Exit 3 if an annotation was refused."""
    from contextlib import closing

    from cli.output import print_line, show
    from cli.review import desk_of, labeller_names
    from data_contracts.review.exchange import exported
    from data_contracts.review.exchange import pull as record
    from data_contracts.review.label_studio import read_export
    from data_contracts.review.label_studio_http import HttpLabelStudio

    names = labeller_names(labeller or [])
    with opened(profile, state) as context:
        desk = desk_of(context)
        if _is_address(origin):
            with closing(HttpLabelStudio(origin)) as studio:
                tasks = exported(studio, project or f"Tidemill {desk.model}")
        else:
            tasks = read_export(Path(origin))
        report = record(desk, tasks, by, names=names)
    counts = {"recorded": report.recorded, "recorded before": report.repeated, "refused": len(report.refused)}
    show(report.model_dump(), [counts], as_json=as_json, title="review pull")
    if report.refused:
        for line in () if as_json else report.refused[:20]:
            print_line(f"  {line}")
        raise SystemExit(3)


@review_app.command("tidy")
def tidy(
    origin: Annotated[str, typer.Option("--from", help="A Label Studio address (http://...).")],
    by: Who,
    project: Title = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete what Label Studio needs no more: tasks whose items are done, withdrawn or erased. Pull before."""
    from contextlib import closing

    from cli.output import show
    from cli.review import desk_of
    from data_contracts.review.exchange import tidy as remove
    from data_contracts.review.label_studio_http import HttpLabelStudio

    with opened(profile, state) as context, closing(HttpLabelStudio(origin)) as studio:
        desk = desk_of(context)
        facts = {"deleted": remove(desk, studio, project or f"Tidemill {desk.model}", by)}
    show(facts, [facts], as_json=as_json, title="review tidy")
