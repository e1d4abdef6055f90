"""Peak resident memory of every process of the demo, sampled beside it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import psutil

SAMPLE_S = 1.0


def _pids(value: Any, key: str = "") -> set[int]:
    """Every process id in a stack file, whatever its shape: numbers under a key that names a pid."""
    if isinstance(value, dict):
        return {pid for name, inner in value.items() for pid in _pids(inner, f"{key}.{name}")}
    if isinstance(value, list):
        return {pid for inner in value for pid in _pids(inner, key)}
    if isinstance(value, int) and not isinstance(value, bool) and "pid" in key.lower():
        return {value}
    return set()


def stack_pids(stack_file: Path) -> set[int]:
    """Process ids named in the stack file; none while it is not there or half written."""
    try:
        return _pids(json.loads(stack_file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def resident_bytes(roots: set[int]) -> int:
    """Resident memory of these processes and all below them, in bytes; shared pages count in each."""
    family: dict[int, psutil.Process] = {}
    for pid in roots:
        try:
            process = psutil.Process(pid)
            for member in (process, *process.children(recursive=True)):
                family[member.pid] = member
        except psutil.Error:
            continue
    total = 0
    for process in family.values():
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


class PeakMemory:
    """Samples in a thread between `__enter__` and `__exit__`."""

    def __init__(self, stack_file: Path) -> None:
        self.stack_file = stack_file
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    @property
    def peak_mb(self) -> int:
        """Peak so far, in MiB."""
        return round(self.peak_bytes / 2**20)

    def _sample(self) -> None:
        roots = {psutil.Process().pid} | stack_pids(self.stack_file)
        self.peak_bytes = max(self.peak_bytes, resident_bytes(roots))

    def _run(self) -> None:
        while True:
            self._sample()
            if self._stop.wait(SAMPLE_S):
                return

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)
