"""One retrain in a process of its own, so that a test can kill it: `python -m tests.flows.retrain_child CONFIG ID`."""

from __future__ import annotations

import sys

from configs.loader import load_config
from flows.context import open_context
from flows.observer import PrintObserver
from flows.pipeline import run_retrain

if __name__ == "__main__":
    context = open_context(load_config(sys.argv[1]))
    print(run_retrain(context, sys.argv[2], PrintObserver()))
