"""`tidemill erase` and `tidemill retention`: taking people out, and taking out what is too old."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Profile, StateOption

if TYPE_CHECKING:
    from flows.context import Context
    from flows.erasure import Outcome

retention_app = typer.Typer(help="Delete what is older than the policy.", no_args_is_help=True, rich_markup_mode=None)


def erase(
    principal: Annotated[str, typer.Argument(help="The person: the `user` of their requests, exactly.")],
    by: Annotated[str, typer.Option("--by", help="Who takes the responsibility; goes into the audit log.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; goes into the audit log, so never the name.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    scan: Annotated[bool, typer.Option("--scan", help="Only look for what is left; exit 1 if anything is.")] = False,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", help="Distinctive texts of theirs to look for, one a line.")
    ] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Erase a person: their rows everywhere, the service of what they taught by a deadline."""
    from cli.options import opened
    from configs.errors import InputError
    from flows import erasure
    from flows.observer import PrintObserver

    with opened(profile, state) as context:
        if scan:
            _scan(context, principal, text_file, as_json)
            return
        if dry_run:
            outcome = erasure.plan(context, principal)
        else:
            if not by.strip() or not reason.strip():
                raise InputError(
                    "an erasure is somebody's decision",
                    where="--by and --reason",
                    expected="who takes the responsibility, and why",
                    fix="give both, or --dry-run to see what would go",
                )
            outcome = erasure.erase(context, principal, by=by, reason=reason, observer=PrintObserver(quiet=as_json))
    _show(outcome, as_json)


def _show(outcome: Outcome, as_json: bool) -> None:
    from cli.output import print_line, show

    value: dict[str, Any] = {
        "state": outcome.state,
        "counts": outcome.counts,
        "versions": list(outcome.versions),
        "exports_to_clean_by_hand": list(outcome.exports),
        "settles_at": outcome.settles_at.isoformat() if outcome.settles_at else None,
        "erasure": outcome.erasure.as_dict() if outcome.erasure else None,
    }
    rows = [{"place": place, "rows": n} for place, n in outcome.counts.items()]
    titles = {
        "planned": "an erasure now would take",
        "nothing": "no row of this person",
        "settling": "erased",
        "done": "erased",
    }
    show(value, rows, as_json=as_json, title=titles[outcome.state])
    if as_json:
        return
    if outcome.versions:
        job = outcome.erasure
        until = f" until {job.deadline:%Y-%m-%d %H:%M} UTC at the latest" if job else ""
        print_line(f"Taught by them, tainted: {', '.join(outcome.versions)}. Served{until}; a retrain is asked for.")
    for path in outcome.exports:
        would = "would not be reached" if outcome.state == "planned" else "not reached"
        print_line(f"Exported, {would} (moved, or no JSON Lines): {path}")
    if outcome.counts.get("review"):
        print_line("Tasks pushed to a Label Studio server are not reached; `tidemill review tidy` removes them.")
    if outcome.settles_at:
        print_line(
            f"What was under way is looked for once more at {outcome.settles_at:%H:%M:%S} UTC, by the watch or by this "
            "command."
        )


def _scan(context: Context, principal: str, text_file: Path | None, as_json: bool) -> None:
    import os

    from cli.output import print_line, show
    from configs.errors import InputError
    from flows.erasure_scan import scan

    texts: list[str] = []
    if text_file is not None:
        try:
            texts = [line for line in text_file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError("the texts cannot be read", where=text_file, expected="UTF-8 text", found=error) from error
    url = context.config.stack.prefect_url or os.environ.get("PREFECT_API_URL") or _stack_prefect(context)
    result = scan(context, principal, texts, prefect_url=url)
    rows = [vars(finding) for finding in result.findings]
    show(result.as_dict(), rows, as_json=as_json, title="left of this person")
    if not as_json:
        looked = f"{result.rows} rows, {result.files} files ({result.bytes / 1e6:.1f} MB), {result.pieces} pieces"
        print_line(f"Looked at {looked} of MLflow and Prefect.")
        for line in result.skipped:
            print_line(f"Not looked at: {line}")
    if result.findings or result.skipped:
        raise SystemExit(1)


def _stack_prefect(context: Context) -> str | None:
    """The local stack's Prefect API, if it runs."""
    import json

    try:
        return str(json.loads(context.state.stack_file.read_text(encoding="utf-8"))["prefect_api_url"])
    except (OSError, ValueError, KeyError):
        return None


@retention_app.command("run")
def retention_run(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing.")] = False,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Delete what is older than `retention.ttl_days` says; the watch does the same."""
    from cli.options import opened
    from cli.output import show
    from flows.retention import retain

    with opened(profile, state) as context:
        counts = retain(context, dry_run=dry_run)
    title = "older than the policy" if dry_run else "deleted by retention"
    show({"dry_run": dry_run, "counts": counts}, [{"kind": k, "gone": n} for k, n in counts.items()],
         as_json=as_json, title=title)  # fmt: skip
