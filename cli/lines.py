"""Files of one JSON object a line, as people hand them to commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from configs.errors import InputError


def numbered_lines(path: Path, what: str) -> Iterator[tuple[str, str]]:
    """(`path:number`, line) of each line that says something; a line ends at a newline, not at U+2028.

    Raises:
        InputError: the file cannot be read; `what` is what it holds.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} cannot be read", where=path, found=error) from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield f"{path}:{number}", line
