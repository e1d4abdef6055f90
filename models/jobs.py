"""Heavy work in a process of its own: a JSON job in, JSON lines out, and nothing left behind.

The parent calls `run_job("training.trainer", job, work_dir, on_event)`; the child's `main` calls `serve_job(run)`.
A child ends when its parent ends: it holds the read end of a pipe the parent never writes to, and stops when that
closes. Whatever else the child's libraries print goes to `<work_dir>/<module>.log`, never between the JSON lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from configs import errors
from configs.errors import EvaluationError, TidemillError, TrainingError, WorkerLostError

GRACE_S = 20.0
"""Seconds between SIGTERM and SIGKILL: enough for a checkpoint."""
STOPPED = 143
"""Exit code of a child that was asked to stop and did (128 + SIGTERM)."""

Event = dict[str, Any]
Emit = Callable[[Event], None]


class JobStopped(Exception):
    """Raised inside a child's work when it was asked to stop and has saved what it must."""


# --- the parent ------------------------------------------------------------------------------------


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one (temporary name, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, ensure_ascii=False, default=str)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(temporary, path)


def error_from_dict(data: Mapping[str, Any], default: type[TidemillError]) -> TidemillError:
    """The exception a child reported, as its own class again; `default` where its code is unknown."""
    classes = {c.code: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TidemillError)}
    cls = classes.get(str(data.get("code")), default)
    message = str(data.get("message") or "the job failed without saying why")
    return cls(message, **{key: data.get(key) for key in ("where", "expected", "found", "fix")})


def _child_environment(job: Mapping[str, Any], env: Mapping[str, str] | None) -> dict[str, str]:
    merged = {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    threads = int(job.get("threads") or 0)
    if threads > 0:
        merged["OMP_NUM_THREADS"] = str(threads)
    return {**merged, **(env or {})}


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the child's whole group, `GRACE_S` seconds to save, then SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(GRACE_S)
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    with contextlib.suppress(ProcessLookupError):  # helpers the child may have left behind
        os.killpg(process.pid, signal.SIGKILL)


def _let_go(process: subprocess.Popen[bytes], stdin: IO[bytes]) -> None:
    """Close the pipe once the child has ended: what it started and left behind sees by that that nobody is there.

    A process that begins after its launcher was killed cannot tell by its parent: it never saw another.
    """
    process.wait()
    with contextlib.suppress(OSError, ValueError):
        stdin.close()


def _tail(log: Path, lines: int = 12) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 8192))
        return "\n".join(handle.read().decode("utf-8", "replace").splitlines()[-lines:])


def _read_events(stream: IO[bytes], on_event: Emit) -> Event | None:
    """Forward each event; returns the final one (`done` or `error`), which is not forwarded if it is an error."""
    final: Event | None = None
    for line in stream:
        try:
            event = json.loads(line)
        except ValueError:
            event = {"event": "log", "line": line.decode("utf-8", "replace").rstrip()}
        if event.get("event") in ("done", "error") and (final is None or final["event"] != "error"):
            final = event  # of several errors the first: what processes that work together say later follows from it
        if event.get("event") != "error":
            on_event(event)
    return final


def run_job(
    module: str,
    job: Mapping[str, Any],
    work_dir: Path,
    on_event: Emit,
    env: Mapping[str, str] | None = None,
    launcher: Sequence[str] = ("-m",),
    unsaid: Callable[[Path, str], TidemillError] | None = None,
) -> Event:
    """Run `python -m MODULE --job JOB.json` to its end and give every event to `on_event` as it comes.

    The job is written to `<work_dir>/<module>.json`. Any exception here, also one raised by `on_event` or a
    KeyboardInterrupt, ends the child and its whole process group before it is passed on.

    Args:
        module: a module whose main calls `serve_job`.
        job: JSON-ready; `threads` > 0 sets the child's OpenMP threads.
        work_dir: made when absent; also holds the child's log.
        on_event: called with {"event": "progress", ...} and at last {"event": "done", ...}.
        env: more environment variables of the child.
        launcher: what stands between `python` and the module's name; another one may start it several times over.
        unsaid: makes, of the log's path and what was found, the error of a child that ended by itself without a final
            event; None is what is raised below.

    Returns:
        The final event, `{"event": "done", ...}`.

    Raises:
        TidemillError: the class the child reported; WorkerLostError if a signal ended it; TrainingError
            (EvaluationError for `evaluation.*`) if it ended otherwise without a final event, with the end of its log.
    """
    failure: type[TidemillError] = EvaluationError if module.startswith("evaluation.") else TrainingError
    job_path, log_path = work_dir / f"{module}.json", work_dir / f"{module}.log"
    write_json(job_path, job)
    # -P: a folder named `models` in the current directory must not shadow ours.
    command = [sys.executable, "-P", *launcher, module, "--job", str(job_path)]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env=_child_environment(job, env),
        )
    stdin, stdout = process.stdin, process.stdout
    if stdin is None or stdout is None:
        raise AssertionError("Popen was asked for pipes")
    threading.Thread(target=_let_go, args=(process, stdin), daemon=True).start()
    try:
        final = _read_events(stdout, on_event)
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        stdin.close()
        stdout.close()
    if final is not None and final["event"] == "error":
        raise error_from_dict(final, failure)
    if final is None or code != 0:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        what = "was stopped before it finished" if code in (STOPPED, -9, -15) else "ended unexpectedly"
        lost = code < 0 or code == STOPPED  # killed from outside: another attempt may do better
        found = f"{how}; end of its log: {_tail(log_path) or '(empty)'}"
        if final is None and unsaid is not None and not lost:
            raise unsaid(log_path, found)
        raise (WorkerLostError if lost else failure)(
            f"{module} {what}",
            where=log_path,
            expected="a final `done` event and exit code 0",
            found=found,
            fix="run it again: finished work is kept; if it was killed for memory, lower rows_per_step or batch",
        )
    return final


# --- the child -------------------------------------------------------------------------------------


def _own_stdout() -> Emit:
    """Keep the real stdout for events and point file descriptor 1 at stderr, so no library can write between."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    lock = threading.Lock()

    def emit(event: Event) -> None:
        line = json.dumps(event, ensure_ascii=False, default=str).encode("utf-8") + b"\n"
        with lock:
            events.write(line)

    return emit


def _watch_parent(stop: threading.Event) -> None:
    """Set `stop` when the parent's pipe closes; leave hard if the work does not notice in time."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        _leave(stop)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _leave(stop: threading.Event) -> None:
    stop.set()
    threading.Event().wait(GRACE_S)
    os._exit(STOPPED)


def _as_rank(emit: Emit, rank: int, local_rank: int, stop: threading.Event) -> Emit:
    """Rank 0 speaks; the first on another machine says when it is done there; any may report an error.

    When nobody listens any more, the work is stopped and saved.
    """

    def emit_as_rank(event: Event) -> None:
        kind = event.get("event")
        if rank == 0 or kind == "error" or (kind == "done" and local_rank == 0):
            try:
                emit(event)
            except BrokenPipeError:
                stop.set()

    return emit_as_rank


def serve_job(
    run: Callable[[dict[str, Any], Emit, threading.Event], Event], *, rank: int | None = None, local_rank: int = 0
) -> int:
    """A child's main: read `--job`, run it, emit the final event.

    Args:
        run: called with (job, emit, stop); returns the fields of the `done` event. `stop` is set by SIGTERM and by
            the parent's end; the work then saves and raises `JobStopped`.
        rank: of a job that several processes run together under a launcher; None alone.
        local_rank: its number on this machine.

    Returns:
        The exit code: 0, 143 when stopped, otherwise the error's `exit_code`.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True, type=Path, help="JSON file with the job")
    path: Path = parser.parse_args().job
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    emit = _own_stdout()
    _watch_parent(stop)
    if rank is not None:
        emit = _as_rank(emit, rank, local_rank, stop)
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
        emit({"event": "done", **run(job, emit, stop)})
    except JobStopped:
        if rank == 0:  # the launcher has an exit code of its own, so this one would not be seen
            fix = "run it again: it goes on from its checkpoint"
            error = WorkerLostError("the job was stopped before it finished", where=path, fix=fix)
            emit({"event": "error", **error.as_dict()})
        return STOPPED
    except BrokenPipeError:
        return STOPPED  # the parent is gone: nobody is left to tell
    except TidemillError as error:
        emit({"event": "error", **error.as_dict()})
        return error.exit_code
    except Exception as error:  # the process border: everything unforeseen is reported, with its trace in the log
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        emit({"event": "error", "code": "", "message": message, "where": path, "fix": "see the log beside the job"})
        return 1
    return 0
