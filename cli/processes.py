"""Child processes of the stack: started detached with a log file, ended by process id and never by name."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.errors import StackError

# Started processes outlive the function that starts them; their handles must not be collected before.
_HANDLES: list[subprocess.Popen[bytes]] = []


@dataclass(frozen=True)
class Child:
    """A started process. `created` tells it from a later process that got the same id."""

    name: str
    pid: int
    created: float
    log: str

    def as_dict(self) -> dict[str, Any]:
        """For the stack file."""
        return asdict(self)


def spawn(name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> Child:
    """Start a process in a session of its own; its output goes to `log`."""
    import psutil

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _HANDLES.append(process)
    return Child(name, process.pid, psutil.Process(process.pid).create_time(), str(log))


def is_alive(child: Child) -> bool:
    """True if this very process still runs."""
    import psutil

    try:
        process = psutil.Process(child.pid)
        return abs(process.create_time() - child.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def tail(path: str, lines: int = 5) -> str:
    """The last lines of a log."""
    try:
        return " / ".join(Path(path).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])
    except OSError:
        return "(no log)"


def stop_processes(children: Sequence[Child], grace_s: float = 15.0) -> None:
    """SIGTERM to each process and its descendants, then SIGKILL to what is left after `grace_s`."""
    import psutil

    family: list[psutil.Process] = []
    for child in children:
        if not is_alive(child):
            continue
        try:
            process = psutil.Process(child.pid)
            descendants = process.children(recursive=True)
            process.terminate()
            family += [process, *descendants]
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5)
    _HANDLES[:] = [handle for handle in _HANDLES if handle.poll() is None]


def wait_until_ready(child: Child, url: str, timeout_s: float) -> None:
    """Poll `url` until it answers 2xx.

    Raises:
        StackError: the process ended, or did not answer in time; the last lines of its log are quoted.
    """
    import httpx

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not is_alive(child):
            raise StackError(f"{child.name} ended at start", where=child.log, found=tail(child.log))
        try:
            if httpx.get(url, timeout=3.0).is_success:
                return
        except httpx.HTTPError:
            pass  # tolerated: it is still starting
        time.sleep(0.25)
    raise StackError(
        f"{child.name} did not answer within {timeout_s:.0f} s",
        where=url,
        found=tail(child.log),
        fix=f"read {child.log}; raise stack.start_timeout_s on a slow machine",
    )
