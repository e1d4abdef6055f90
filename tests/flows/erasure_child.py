"""An erasure in a process of its own that kills itself: `python -m tests.flows.erasure_child CONFIG NAME POINT`.

POINT is the beginning of a line the erasure says (`erase files: begins`), or `sql DELETE FROM feedback` for a statement
in the middle of the first transaction; with none of them it runs to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from configs.loader import load_config
from flows.context import open_context
from flows.erasure import erase
from flows.observer import PrintObserver
from registry_hooks.memory import MemoryRegistry


class Killer(PrintObserver):
    """Ends its own process, as a power cut would, when it hears a line."""

    def __init__(self, point: str) -> None:
        super().__init__(quiet=True)
        self.point = point

    def log(self, message: str) -> None:
        if self.point and message.startswith(self.point):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    config, name, point = sys.argv[1:4]
    context = open_context(load_config(config))
    context.__dict__["registry"] = MemoryRegistry()
    if point.startswith("sql "):

        @event.listens_for(context.store.engine, "before_cursor_execute")
        def _kill(_conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
            if statement.startswith(point[4:]):
                os.kill(os.getpid(), signal.SIGKILL)

    print(erase(context, name, by="officer", reason="ticket 12", observer=Killer(point)).state)
