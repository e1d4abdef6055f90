"""Showing a retrain in the Prefect UI: run logs, a moving progress artifact per step, tables and summaries."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

MIN_INTERVAL_S = 2.0


class PrefectObserver:
    """Observer of one flow run. Artifacts fail softly: a UI that cannot be reached never stops a retrain."""

    def __init__(self, key_prefix: str) -> None:
        self.key_prefix = key_prefix
        self._bars: dict[str, UUID] = {}
        self._last: dict[str, float] = {}

    def _key(self, key: str) -> str:
        return f"{self.key_prefix}-{key}".lower().replace("_", "-")

    def log(self, message: str) -> None:
        """One line in the run's log."""
        get_run_logger().info(message)

    def progress(self, step: str, done: float, total: float, note: str = "") -> None:
        """Move the step's bar, at most every two seconds, and always at its end."""
        now = time.monotonic()
        percent = 100.0 * done / total if total else 0.0
        if percent < 100 and now - self._last.get(step, 0.0) < MIN_INTERVAL_S:
            return
        self._last[step] = now
        try:
            if step not in self._bars:
                made = create_progress_artifact(percent, key=self._key(step), description=f"{step}: {note}")
                self._bars[step] = made if isinstance(made, UUID) else UUID(str(made))
            else:
                update_progress_artifact(self._bars[step], percent, description=f"{step}: {note}")
        except Exception as error:  # tolerated: the Prefect server is away; the store has the truth
            self.log(f"progress not shown: {error}")
        if note:
            self.log(f"{step} {percent:.0f} %: {note}")

    def table(self, key: str, rows: Sequence[dict[str, Any]], title: str) -> None:
        """A table artifact."""
        try:
            create_table_artifact([dict(row) for row in rows] or [{"": "none"}], key=self._key(key), description=title)
        except Exception as error:  # tolerated: as above
            self.log(f"table not shown: {error}")

    def markdown(self, key: str, text: str, title: str) -> None:
        """A markdown artifact."""
        try:
            create_markdown_artifact(text, key=self._key(key), description=title)
        except Exception as error:  # tolerated: as above
            self.log(f"summary not shown: {error}")
