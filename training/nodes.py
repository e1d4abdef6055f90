"""Training over several machines: the first one calls, the others follow.

The machines share the state directory. The one whose flow trains leaves a call beside the adapters for as long as it
runs; on each other machine `python -m training.nodes --adapters STATE/adapters` waits for calls and starts its part of
the job. On all of them MASTER_ADDR is the first machine's address, MASTER_PORT a port that is free there (29500), and
NODE_RANK is 0, 1, 2 ... in any fixed order, as torch's launchers have it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.distributed import DistributedSection
from configs.errors import ConfigError, TidemillError
from models.jobs import Event, write_json

CALL = ".training-call.json"
POLL_S = 1.0
_UNREADABLE = (OSError, KeyError, TypeError, ValueError)
"""What a share that fails, or a call of another version, raises; pydantic's and JSON's errors are ValueErrors."""


@dataclass(frozen=True)
class Node:
    """Where one machine stands.

    Attributes:
        rank: 0 is the machine that publishes.
        address: the first machine's.
        port: on the first machine; 0 takes a free one, which only one machine can.
    """

    rank: int = 0
    address: str = ""
    port: int = 0


def this_node(setting: DistributedSection, environ: Mapping[str, str]) -> Node:
    """This machine, from its environment; a single machine needs none.

    Raises:
        ConfigError: a variable is missing or no number within range.
    """
    if setting.machines == 1:
        return Node()
    try:
        node = Node(int(environ["NODE_RANK"]), environ["MASTER_ADDR"], int(environ.get("MASTER_PORT", "29500")))
    except (KeyError, ValueError) as error:
        raise _misplaced(setting, f"{type(error).__name__}: {error}") from error
    if not 0 <= node.rank < setting.machines:
        raise _misplaced(setting, f"NODE_RANK={node.rank}")
    return node


def _misplaced(setting: DistributedSection, found: str) -> ConfigError:
    return ConfigError(
        "this machine does not know its place among those that train together",
        where="environment",
        expected=f"NODE_RANK 0 to {setting.machines - 1}, MASTER_ADDR and, if it is not 29500, MASTER_PORT",
        found=found,
        fix="set them on every machine (docs/training.md), or training.distributed.machines: 1",
    )


@contextlib.contextmanager
def called(setting: DistributedSection, job: Mapping[str, Any]) -> Iterator[str]:
    """While the block runs, the other machines find this job; gives the call's id, "" where nobody is called."""
    if setting.machines == 1:
        yield ""
        return
    path, name = Path(job["out_dir"]) / CALL, uuid.uuid4().hex
    write_json(path, {"id": name, "job": dict(job)})
    try:
        yield name
    finally:
        # Not a newer claim's call. Tolerated: a share that is away now; a call left behind costs one failed start.
        with contextlib.suppress(*_UNREADABLE):
            if (read_call(path) or ("",))[0] == name:
                path.unlink(missing_ok=True)


def read_call(path: Path) -> tuple[str, dict[str, Any]] | None:
    """(id, job) of the call that is out now, or None."""
    try:
        call = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(call["id"]), dict(call["job"])


def follow(
    adapters: Path, environ: Mapping[str, str], say: Callable[[Event], None], *, calls: int | None = None
) -> None:
    """Start this machine's part of every job that is called out.

    A job that fails is told and forgotten: the machine that called starts it again, with a new call. A share that is
    away for a while, or a call this version cannot read, is told once and ends nothing.

    Args:
        adapters: the adapters' root, on the file system all machines share.
        environ: see `this_node`.
        say: called with what happens here.
        calls: end after so many; None never.
    """
    done: set[str] = set()
    told = ""
    while calls is None or len(done) < calls:
        try:
            call = read_call(adapters / CALL)
        except _UNREADABLE as error:
            call, message = None, f"{type(error).__name__}: {error}"
            if message != told:
                say({"event": "error", "message": message, "where": str(adapters / CALL)})
            told = message
        if call is None or call[0] in done:
            time.sleep(POLL_S)
            continue
        told = ""
        done.add(call[0])
        try:
            _take_part(*call, environ, say)
        except TidemillError as error:
            say({"event": "error", **error.as_dict()})
        except _UNREADABLE as error:
            say({"event": "error", "message": f"{type(error).__name__}: {error}", "where": f"call {call[0]}"})


def _take_part(call: str, job: dict[str, Any], environ: Mapping[str, str], say: Callable[[Event], None]) -> None:
    from training.launch import run_ranks

    node = this_node(DistributedSection.model_validate(job["config"]["distributed"]), environ)
    say({"event": "stage", "text": f"machine {node.rank} takes part in {job['work_dir']}"})
    run_ranks(job, Path(job["work_dir"]) / f"machine-{node.rank}", say, None, node, call)


def main() -> int:
    """Wait for calls until the process is ended."""
    import os

    parser = argparse.ArgumentParser(description="Take part in training that another machine starts.")
    parser.add_argument("--adapters", required=True, type=Path, help="STATE/adapters, shared by all machines")
    parser.add_argument("--calls", type=int, help="end after so many")
    options = parser.parse_args()

    def say(event: Event) -> None:
        sys.stdout.write(json.dumps(event, default=str) + "\n")
        sys.stdout.flush()

    try:
        follow(options.adapters, os.environ, say, calls=options.calls)
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
