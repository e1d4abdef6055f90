"""Regular expressions with a time limit: a pattern from a suite file may be one that explodes.

Python's `re` cannot be interrupted from another thread, so the matches run in a child process (standard library
only, about 20 ms to start) that is ended when one match takes too long.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence

from configs.errors import EvaluationError

MAX_TEXT = 20_000
_START_S = 60.0
_CHILD = """
import json, re, sys
print("ready", flush=True)
for line in sys.stdin:
    pattern, text, ignore_case = json.loads(line)
    flags = re.IGNORECASE | re.DOTALL if ignore_case else re.NOFLAG
    print(int(re.search(pattern, text, flags) is not None), flush=True)
"""


def _read(pipe: object, lines: queue.Queue[str]) -> None:
    for line in pipe:  # type: ignore[attr-defined]
        lines.put(line)
    lines.put("")


def _wait_for_start(lines: queue.Queue[str]) -> None:
    try:
        lines.get(timeout=_START_S)
    except queue.Empty as error:
        raise EvaluationError(
            "the matcher does not start", expected=f"within {_START_S:g} s", fix="try again when the machine is free"
        ) from error


def search_all(
    cases: Sequence[tuple[str, str, str]], *, timeout_s: float = 1.0, ignore_case: bool = True
) -> list[bool]:
    """Whether each pattern is found in its text.

    Args:
        cases: (item id, pattern, text); a text is cut at 20,000 characters.
        ignore_case: ignore case, and let `.` match newlines; False is the pattern as it stands.
        timeout_s: longest time for one match, once the child has started.

    Raises:
        EvaluationError: a match took too long or the pattern is not valid; the item is named.
    """
    if not cases:
        return []
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
    reader.start()
    found = []
    try:
        _wait_for_start(lines)
        for name, pattern, text in cases:
            if child.stdin is None:
                raise EvaluationError("the matcher has no input", where=name)
            try:
                child.stdin.write(json.dumps([pattern, text[:MAX_TEXT], ignore_case]) + "\n")
                child.stdin.flush()
                answer = lines.get(timeout=timeout_s)
            except queue.Empty as error:
                raise EvaluationError(
                    "a regular expression takes too long",
                    where=name,
                    expected=f"a match within {timeout_s:g} s",
                    found=pattern,
                    fix="remove nested repetition such as (a+)+ from the pattern",
                ) from error
            except BrokenPipeError:
                answer = ""
            if not answer:
                raise EvaluationError("a regular expression is not valid", where=name, found=pattern)
            found.append(answer.strip() == "1")
    finally:
        child.kill()
        child.wait()
        reader.join()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # unsent input of a child that has ended
                    continue
    return found
