"""How far sources were read, on both databases."""

from __future__ import annotations

import pytest

from store import sources
from store.engine import Store

MODEL = "support-bot"


def test_cursors_and_reports_of_a_source_are_kept_apart(store: Store) -> None:
    long = "parquet:s3://bucket/" + "x" * 3000
    with store.write() as conn:
        assert sources.cursor(conn, MODEL, long) is None
        sources.save_cursor(conn, MODEL, long, {"files": {"a": ["k", 1]}})
        assert sources.failed(conn, MODEL, long, "down") == 1
        assert sources.failed(conn, MODEL, long, "still down") == 2
        assert sources.failed(conn, MODEL, "other", "down") == 1
    with store.read() as conn:
        assert sources.cursor(conn, MODEL, long) == {"files": {"a": ["k", 1]}}
        assert sources.cursor(conn, "another-model", long) is None
        (other, row) = sources.every(conn, MODEL)
    assert (other.name, other.cursor, other.failures) == ("other", None, 1)
    assert (row.name, row.error, row.failures, row.report) == (long, "still down", 2, {})
    with store.write() as conn:
        sources.succeeded(conn, MODEL, long, {"rows": 3})
    with store.read() as conn:
        row = sources.every(conn, MODEL)[1]
    assert (row.cursor, row.error, row.failures, row.report) == ({"files": {"a": ["k", 1]}}, "", 0, {"rows": 3})


def test_a_cursor_goes_with_its_transaction(store: Store) -> None:
    with store.write() as conn:
        sources.save_cursor(conn, MODEL, "s", {"n": 1})
    with pytest.raises(KeyboardInterrupt):
        _interrupted(store)
    with store.read() as conn:
        assert sources.cursor(conn, MODEL, "s") == {"n": 1}


def _interrupted(store: Store) -> None:
    with store.write() as conn:
        sources.save_cursor(conn, MODEL, "s", {"n": 2})
        raise KeyboardInterrupt
