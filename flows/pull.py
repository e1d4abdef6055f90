"""Pull feedback from the sources of the profile. One that is down is reported and tried again with the next pass.

What is kept of a pull and what the observer is shown are counts, places and our own words: what a row or a server said
may be personal, and neither a ledger nor Prefect is searched when somebody is erased.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import TidemillError
from configs.schema import SourceSection
from data_contracts.sources.base import Cursor, RowError, Source
from data_contracts.sources.ingest import ImportReport, ingest
from data_contracts.sources.opening import open_source
from flows.context import Context
from flows.observer import Observer
from store import sources

ERRORS_SHOWN = 20


@dataclass(frozen=True)
class Pulled:
    """How one source went."""

    name: str
    report: ImportReport | None
    """None if it failed."""
    error: str = ""


def pull(context: Context, observer: Observer) -> tuple[Pulled, ...]:
    """Read on in each source, for at most `ingest.pull_budget_s` seconds together, and keep how far."""
    sections = context.config.ingest.sources
    began = time.monotonic()
    done = []
    for n, section in enumerate(sections, 1):
        # What one source leaves of its share is the others'.
        until = began + context.config.ingest.pull_budget_s * n / len(sections)
        done.append(_one(context, section, until, observer))
    return tuple(done)


def _one(context: Context, section: SourceSection, until: float, observer: Observer) -> Pulled:
    name = f"{section.kind}:{section.path or f'{section.uri}/{section.experiment}'}"
    try:
        source = open_source(section)
        name = source.name
        report = _read(context, source, until)
    except Exception as error:
        # Whatever a source does to us, the watch and the other sources go on.
        text = _words(error)
        with context.store.write() as conn:
            failures = sources.failed(conn, context.model, name, text)
        observer.log(f"Source {name} failed ({failures} in a row), tried again with the next pass: {text}")
        return Pulled(name, None, text)
    with context.store.write() as conn:
        sources.succeeded(conn, context.model, name, shown(report))
    if report.interactions or report.feedback or report.rejected:
        observer.log(f"Source {name}: {report.feedback} new pieces of feedback, {report.rejected} rows rejected.")
    if report.errors:
        rows = [{"line": error.line, "reason": error.reason} for error in report.errors[:ERRORS_SHOWN]]
        observer.table("rejected-rows", rows, f"Rejected rows of {name}")
    return Pulled(name, report)


def _words(error: Exception) -> str:
    """What went wrong, without what was found."""
    if not isinstance(error, TidemillError):
        return f"{type(error).__name__} while reading it"
    cause = error.__cause__
    return error.message if cause is None else f"{error.message} ({type(cause).__name__})"


def _read(context: Context, source: Source, until: float) -> ImportReport:
    with context.store.read() as conn:
        cursor: Cursor | None = sources.cursor(conn, context.model, source.name)
    return ingest(
        context.store,
        context.model,
        context.state.key,
        source,
        cursor=cursor,
        redactor=context.redactor,
        save=lambda conn, at: sources.save_cursor(conn, context.model, source.name, at),
        go_on=lambda _report: time.monotonic() < until,
    )


def shown(report: ImportReport) -> Mapping[str, Any]:
    """A report as JSON, with the places of its first bad rows."""
    skipped: Counter[str] = Counter()
    for reason, n in report.skipped.items():
        # A name in it is the source's own text.
        skipped[f"{reason.partition(':')[0]}: not understood" if "`" in reason else reason] += n
    return {
        "interactions": report.interactions,
        "feedback": report.feedback,
        "kinds": report.kinds,
        "repeated": report.repeated,
        "rejected": report.rejected,
        "skipped": dict(sorted(skipped.items())),
        "finished": report.finished,
        "errors": [_place(error) for error in report.errors[:ERRORS_SHOWN]],
    }


def _place(error: RowError) -> str:
    return f"{error.origin}, line {error.line}: {error.reason}" if error.line else f"{error.origin}: {error.reason}"
