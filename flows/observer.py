"""Where a retrain shows itself. The steps know this seam only; Prefect is one implementation, the terminal another."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Protocol


class Observer(Protocol):
    """What a step may show."""

    def log(self, message: str) -> None:
        """One plain sentence."""

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        """A moving bar: `done` of `total`."""

    def table(self, key: str, rows: Sequence[dict[str, Any]], title: str) -> None:
        """A table; `key` is lower case with dashes."""

    def markdown(self, key: str, text: str, title: str) -> None:
        """A summary."""


class PrintObserver:
    """Plain lines on stderr; for the command line and for tests that read what was said."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        """Keep and print one line."""
        self.lines.append(message)
        if not self.quiet:
            print(message, file=sys.stderr, flush=True)  # noqa: T201 - this is the terminal

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        """Print every tenth of the way."""
        if total and int(10 * done / total) != int(10 * max(done - 1, 0) / total):
            self.log(f"{step}: {100 * done / total:.0f} % {note}")

    def table(self, key: str, rows: Sequence[dict[str, Any]], title: str) -> None:
        """Say how many rows."""
        self.log(f"{title}: {len(rows)} rows")

    def markdown(self, key: str, text: str, title: str) -> None:
        """Say the title."""
        self.log(title)
