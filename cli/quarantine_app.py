"""`tidemill quarantine`: rows that may not teach, and a person's word on them."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from cli.options import AsJson, Profile, StateOption, Who, Why, opened

quarantine_app = typer.Typer(
    help="Rows that may not teach, with the reason.", no_args_is_help=True, rich_markup_mode=None
)
Rows = Annotated[list[str] | None, typer.Argument(help="Row ids.")]
ReasonCode = Annotated[
    str | None, typer.Option("--reason-code", help="All rows held for this reason code; shell patterns are allowed.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before changing many rows.")]


@quarantine_app.command("list")
def list_rows(
    reason: Annotated[str, typer.Option("--reason", help="Reason code; shell patterns are allowed.")] = "*",
    status: Annotated[
        str,
        typer.Option(
            "--status", help="left-out (held, or released and left out again), held, released, dropped or all."
        ),
    ] = "left-out",
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Rows with the rule each broke; of one that was released, the rule it lost to since."""
    from cli.output import show
    from cli.quarantine import matching, table_rows

    with opened(profile, state) as context:
        found = matching(context, reason, status)
    show([row.model_dump(mode="json") for row in found], table_rows(found), as_json=as_json, title="quarantine")


@quarantine_app.command("show")
def show_row(row: str, profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """One row with its texts."""
    from cli.output import print_json, print_line
    from cli.quarantine import row_facts, row_text

    with opened(profile, state) as context:
        facts = row_facts(context, row)
    if as_json:
        print_json(facts)
    else:
        print_line(row_text(facts))


def _decide(
    status: Literal["released", "dropped"],
    rows: list[str] | None,
    code: str | None,
    who: tuple[str, str],
    yes: bool,
    where: tuple[str, str | None],
    as_json: bool,
) -> None:
    from cli.output import show
    from cli.quarantine import chosen
    from data_contracts.review.operator import decide_rows

    with opened(*where) as context:
        ids = chosen(context, rows or [], code)
        if code is not None and not yes:
            _confirm(f"{len(ids)} rows will be {status}. Go on?")
        changed = decide_rows(
            context.store, context.model, ids, status, by=who[0], reason=who[1], redactor=context.redactor
        )
    facts = {status: changed, "unchanged": len(ids) - changed}
    show({**facts, "rows": ids}, [facts], as_json=as_json)


def _confirm(question: str) -> None:
    from configs.errors import InputError

    if not sys.stdin.isatty():
        raise InputError("many rows at once need a yes", where="--yes", expected="--yes", found="nothing")
    if not typer.confirm(question):
        raise SystemExit(1)


@quarantine_app.command("release")
def release(
    by: Who,
    reason: Why,
    rows: Rows = None,
    reason_code: ReasonCode = None,
    yes: Yes = False,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Let rows teach after all; they count as reviewed. An evaluation prompt is never let through."""
    _decide("released", rows, reason_code, (by, reason), yes, (profile, state), as_json)


@quarantine_app.command("drop")
def drop(
    by: Who,
    reason: Why,
    rows: Rows = None,
    reason_code: ReasonCode = None,
    yes: Yes = False,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Rule rows out for good."""
    _decide("dropped", rows, reason_code, (by, reason), yes, (profile, state), as_json)
