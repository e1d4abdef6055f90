"""What commands print: a table for people, JSON for programs; errors on stderr with a stable exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from configs.errors import TidemillError


def _default(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, default=_default, ensure_ascii=False, indent=2) + "\n")


def print_line(text: str) -> None:
    """One line on stdout."""
    sys.stdout.write(text + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """A table on stdout; user text is printed as text, never as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print_line(f"{title}: nothing" if title else "nothing")
        return
    table = Table(title=title or None, title_justify="left")
    for column in rows[0]:
        table.add_column(str(column))
    for row in rows:
        table.add_row(*[Text("" if value is None else str(value)) for value in row.values()])
    Console().print(table)


def show(value: Any, rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "") -> None:
    """`value` as JSON, or `rows` as a table."""
    if as_json:
        print_json(value)
    else:
        print_rows(rows, title)


def fail(error: TidemillError, *, as_json: bool = False) -> NoReturn:
    """Print the error and leave with its exit code."""
    if as_json:
        print_json({"error": error.as_dict()})
    else:
        sys.stderr.write(f"error: {error.message}\n")
        for label in ("where", "expected", "found", "fix"):
            value = getattr(error, label)
            if value is not None:
                sys.stderr.write(f"  {label}: {value}\n")
    raise SystemExit(error.exit_code)
