"""Small helpers every repository uses: checks before a write, dialect inserts, row locks, the commit sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Connection, Select, String, Table, Text, bindparam, update
from sqlalchemy.dialects import postgresql, sqlite

from configs.errors import InputError, StoreError
from store.tables import counters

WRITE_OPTION = "tidemill_write"
"""Execution option of connections made by `Store.write`."""


def checked(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as they are, if both databases can hold them.

    SQLite ignores the length of a column and PostgreSQL refuses NUL in text, so both are checked here and
    the same row has the same fate everywhere.

    Raises:
        InputError: a text that is too long, holds NUL or a lone surrogate; `where` is `table.column`.
    """
    for name, value in values.items():
        if not isinstance(value, str):
            continue
        kind = table.c[name].type
        if isinstance(kind, JSON) or not isinstance(kind, (String, Text)):
            continue
        where = f"{table.name}.{name}"
        if "\0" in value:
            raise InputError(
                "A text holds the NUL character.",
                where=where,
                expected="text without U+0000",
                found=f"U+0000 at {value.index(chr(0))}",
            )
        if kind.length is not None and len(value) > kind.length:
            raise InputError(
                "A text is too long.",
                where=where,
                expected=f"at most {kind.length} characters",
                found=f"{len(value)} characters",
            )
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                "A text is not valid Unicode.",
                where=where,
                expected="no lone surrogates",
                found="a lone surrogate",
            ) from None
    return dict(values)


def insert_into(conn: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """The dialect's INSERT, which knows ON CONFLICT."""
    if conn.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def wrote(conn: Connection, statement: postgresql.Insert | sqlite.Insert) -> bool:
    """Run a one-row INSERT with ON CONFLICT; True if it wrote. (psycopg gives no row count for an INSERT.)"""
    first = next(iter(statement.table.c))
    return conn.execute(statement.returning(first)).first() is not None


def locked(conn: Connection, statement: Select[Any]) -> Select[Any]:
    """The statement with FOR UPDATE on a writing connection; SQLite's writers are alone anyway."""
    return statement.with_for_update() if conn.get_execution_options().get(WRITE_OPTION) else statement


def chunks(items: Iterable[str], size: int = 500) -> Iterator[Sequence[str]]:
    """Slices of at most `size`, for IN lists that stay below the databases' limits of parameters."""
    everything = list(items)
    for start in range(0, len(everything), size):
        yield everything[start : start + size]


def take(conn: Connection, counter: str, n: int) -> int:
    """Advance a counter by `n` and return its first new number.

    The counter's row stays locked until the transaction ends, so numbers are in the order of commits.
    """
    statement = (
        update(counters)
        .where(counters.c.name == counter)
        .values(value=counters.c.value + bindparam("n"))
        .returning(counters.c.value)
    )
    last = conn.execute(statement, {"n": n}).scalar_one_or_none()
    if last is None:
        raise StoreError("A counter is missing.", where=f"counters.{counter}", fix="restore the store from a backup")
    return int(last) - n + 1
