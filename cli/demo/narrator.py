"""Tells the story as it happens: sentences, links and bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

PLAIN_EVERY_S = 15.0


class Bar:
    """One moving bar; `update` may be called from any thread."""

    def __init__(self, narrator: Narrator, label: str, total: float | None) -> None:
        self._narrator = narrator
        self._label = label
        self._total = total
        self._task: TaskID | None = None
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._last_time = time.monotonic()
        self._last_quarter = 0

    def update(self, done: float | None = None, note: str = "", total: float | None = None) -> None:
        """Move to `done` (of `total`) and show a few words beside the bar."""
        with self._lock:
            self._total = total if total is not None else self._total
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, completed=done, total=self._total, note=escape(note))
            elif self._worth_a_line(done):
                share = f" {100 * done / self._total:.0f} %" if done is not None and self._total else ""
                self._narrator.line(f"  {self._label}{share}{': ' + note if note else ''}")

    def _worth_a_line(self, done: float | None) -> bool:
        """Without a terminal: one line every quarter, or every few seconds where the end is not known."""
        now = time.monotonic()
        if self._total and done is not None:
            quarter = int(4 * done / self._total)
            if quarter <= self._last_quarter:
                return False
            self._last_quarter = quarter
        elif now - self._last_time < PLAIN_EVERY_S:
            return False
        self._last_time = now
        return True


class Narrator:
    """Where the demo speaks.

    Args:
        console: a rich console; its `is_terminal` decides between bars and plain lines.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.started = time.monotonic()

    @property
    def clock(self) -> str:
        """Minutes and seconds since the start."""
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def line(self, text: str) -> None:
        """One line as it is."""
        self.console.print(escape(text), soft_wrap=True)

    def say(self, sentence: str) -> None:
        """One sentence, with the time since the start."""
        self.console.print(f"[dim]{self.clock:>5}[/dim]  {escape(sentence)}", soft_wrap=True)

    def chapter(self, title: str) -> None:
        """A new act."""
        self.console.print()
        if self.console.is_terminal:
            self.console.rule(f"[bold]{escape(title)}", align="left")
        else:
            self.console.print(f"== {escape(title)} ==")

    def link(self, label: str, target: str) -> None:
        """Something to open."""
        self.console.print(f"       {escape(label)}: [link={target}]{escape(target)}[/link]", soft_wrap=True)

    def problem(self, sentence: str) -> None:
        """Something that should not be so."""
        self.console.print(f"[dim]{self.clock:>5}[/dim]  [bold red]{escape(sentence)}[/bold red]", soft_wrap=True)

    @contextmanager
    def bar(self, label: str, total: float | None = None) -> Iterator[Bar]:
        """A bar for the time of the block; without `total` it only shows that something goes on."""
        bar = Bar(self, label, total)
        if not self.console.is_terminal:
            yield bar
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            bar._progress = progress
            bar._task = progress.add_task(escape(label), total=total, note="")
            yield bar

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """The figures at the end."""
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, value in rows:
            table.add_row(escape(name), escape(value))
        self.console.print()
        self.console.print(table)
