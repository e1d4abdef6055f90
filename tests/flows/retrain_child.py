"""One retrain in a process of its own, so that a test can kill it: `python -m tests.flows.retrain_child CONFIG ID`."""

from __future__ import annotations

import sys
from pathlib import Path

from flows.context import open_context, read_resolved
from flows.observer import PrintObserver
from flows.pipeline import run_retrain

if __name__ == "__main__":
    context = open_context(*read_resolved(Path(sys.argv[1])))
    print(run_retrain(context, sys.argv[2], PrintObserver()))
