"""`tidemill feedback`: bring feedback in and out, and see how the sources of the profile are."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import AsJson, Profile, StateOption, opened

if TYPE_CHECKING:
    from data_contracts.sources.base import Source
    from data_contracts.sources.ingest import ImportReport

feedback_app = typer.Typer(help="Bring feedback in and out.", no_args_is_help=True, rich_markup_mode=None)

SHOWN = 20
Where = Annotated[str, typer.Argument(metavar="PATH|URI", help="A file, folder or glob, or a URL of fsspec.")]
Format = Annotated[
    str,
    typer.Option(
        help="auto, jsonl, openai-chat, openai-dpo, sharegpt, alpaca, trl, label-studio, argilla, parquet, csv, mlflow."
    ),
]


@feedback_app.command("import")
def feedback_import(
    path: Where,
    format: Format = "auto",
    experiment: Annotated[str | None, typer.Option(help="mlflow: the experiment's name; PATH is the server.")] = None,
    principal: Annotated[str, typer.Option(help="Who stands behind rows that name nobody.")] = "imported",
    scope: Annotated[str, typer.Option(help="user, or review: labels that need no corroboration.")] = "user",
    trust_scope: Annotated[
        bool, typer.Option("--trust-scope", help="Rows may say themselves that they are of scope review: own exports.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come in; change nothing.")] = False,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Import interactions and feedback; bad lines are named, good ones are kept. Doing it twice changes nothing."""
    from cli.output import print_line, show
    from data_contracts.sources.ingest import ingest

    source = _source(path, format, experiment, principal, scope, trust_scope)
    began = time.monotonic()
    with opened(profile, state) as context:
        report = ingest(
            context.store,
            context.model,
            context.state.key,
            source,
            redactor=context.redactor,
            dry_run=dry_run,
            go_on=_progress,
        )
    counts = {**_counts(report), "seconds": round(time.monotonic() - began, 1)}
    more = {"kinds": report.kinds, "skipped": report.skipped, "dry_run": dry_run}
    errors = [str(error) for error in report.errors]
    title = f"{path} (dry run)" if dry_run else path
    show({**counts, **more, "errors": errors}, [counts], as_json=as_json, title=title)
    if not as_json:
        for reason, n in report.skipped.items():
            print_line(f"  left out: {n} - {_visible(reason)}")
        for error in errors[:SHOWN]:
            print_line(f"  {_visible(error)}")
        if report.rejected > SHOWN:
            print_line(f"  and {report.rejected - SHOWN} more")
    if report.rejected:
        raise SystemExit(3)


def _source(path: str, format: str, experiment: str | None, principal: str, scope: str, trust_scope: bool) -> Source:
    from configs.errors import InputError
    from data_contracts.sources.base import Defaults
    from data_contracts.sources.opening import file_source

    if scope not in ("user", "review"):
        raise InputError("no such scope", where="--scope", expected="user or review", found=scope)
    if not 1 <= len(principal) <= 128:
        raise InputError("a name of 1 to 128 characters expected", where="--principal", found=f"{len(principal)}")
    if format != "mlflow":
        if experiment is not None:
            raise InputError("only MLflow has experiments", where="--experiment", fix="add --format mlflow")
        return file_source(path, format, principal, scope, trust_scope=trust_scope)
    if experiment is None:
        raise InputError("an MLflow server has many experiments", where="--experiment", fix="name one")
    from data_contracts.sources.mlflow_traces import MlflowSource

    return MlflowSource(path, experiment, defaults=Defaults(principal, scope, "mlflow"))


def _visible(text: str) -> str:
    """Names out of a file, without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _progress(report: ImportReport) -> bool:
    """One moving line on a terminal; never stops the import."""
    if sys.stderr.isatty():
        rows = report.feedback + report.repeated + report.interactions
        sys.stderr.write(f"\r{rows} interactions and pieces of feedback, {report.rejected} rows rejected ")
    return True


def _counts(report: ImportReport) -> dict[str, Any]:
    return {
        "interactions": report.interactions,
        "feedback": report.feedback,
        "repeated": report.repeated,
        "rejected": report.rejected,
    }


@feedback_app.command("export")
def feedback_export(
    path: Where,
    format: Annotated[str, typer.Option(help="As for import, but auto and mlflow.")] = "jsonl",
    since: Annotated[str | None, typer.Option(help="Only what was said since, for example 2026-01-31.")] = None,
    kind: Annotated[str | None, typer.Option(help="thumb, rating, correction, preference, comment, incident.")] = None,
    profile: Profile = "default",
    state: StateOption = None,
    as_json: AsJson = False,
) -> None:
    """Export interactions and feedback; the file appears whole or not at all. Says what the format could not hold."""
    from cli.output import print_line, show
    from data_contracts.sources.export import export
    from store.erasure import record_export

    with opened(profile, state) as context:
        only, after = _kind(kind), _time(since)
        where = path if "://" in path else str(Path(path).resolve())
        with context.store.write() as conn:
            record_export(conn, context.model, where, 0)  # first: an erasure meanwhile must know of the file
        report = export(context.store, context.model, path, format=format, kind=only, since=after)
        with context.store.write() as conn:
            record_export(conn, context.model, where, report.rows)
    left = sum(report.left_out.values())
    facts = {"lines": report.rows, "left_out": left, "path": path}
    show({**facts, "reasons": report.left_out}, [facts], as_json=as_json)
    if not as_json:
        for reason, n in report.left_out.items():
            print_line(f"  left out: {n} - {reason}")


def _kind(value: str | None) -> Any:
    from configs.errors import InputError
    from data_contracts.records import FeedbackKind

    if value is not None and value not in list(FeedbackKind):
        raise InputError("no such kind", where="--kind", expected=", ".join(FeedbackKind), found=value)
    return None if value is None else FeedbackKind(value)


def _time(value: str | None) -> datetime | None:
    from configs.errors import InputError

    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InputError(
            "not a date", where="--since", expected="2026-01-31 or 2026-01-31T12:00:00Z", found=value
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


@feedback_app.command("sources")
def feedback_sources(profile: Profile = "default", state: StateOption = None, as_json: AsJson = False) -> None:
    """The sources the watch pulls from, and how their last pull went."""
    from cli.output import show
    from data_contracts.sources.opening import open_source
    from store import sources

    with opened(profile, state) as context:
        wanted = [open_source(section).name for section in context.config.ingest.sources]
        with context.store.read() as conn:
            known = {row.name: row for row in sources.every(conn, context.model)}
    facts = []
    for name in wanted:
        row = known.get(name)
        facts.append(
            {
                "source": name,
                "pulled": row.updated_at.isoformat(timespec="seconds") if row else "never",
                "rejected": row.report.get("rejected", 0) if row else 0,
                "failures": row.failures if row else 0,
                "error": row.error if row else "",
            }
        )
    detail = [{**one, "report": known[one["source"]].report if one["source"] in known else {}} for one in facts]
    show(detail, facts, as_json=as_json, title="sources")
