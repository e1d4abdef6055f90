"""Each distinct text is embedded once, for each model."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import numpy as np

from data_contracts.records import utc_now
from models.embedding_cache import CachedEmbedder, forget_unused


class Counting:
    """An encoder that writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str], batch: int = 32) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once_and_in_order(tmp_path: Path) -> None:
    encoder = Counting()
    embed = CachedEmbedder(tmp_path / "cache" / "e.sqlite", "m1", lambda: encoder)
    assert embed(["aa", "b", "aa", "\ud800"]).tolist() == [[2, 1], [1, 1], [2, 1], [1, 1]]
    again = CachedEmbedder(tmp_path / "cache" / "e.sqlite", "m1", Counting)
    assert again(["b", "ccc", "aa"]).tolist() == [[1, 1], [3, 1], [2, 1]]
    assert encoder.asked == ["aa", "b", "\ud800"]
    assert embed([]).shape[0] == 0


def test_another_model_has_vectors_of_its_own(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    CachedEmbedder(tmp_path / "e.sqlite", "m1", lambda: first)(["a"])
    CachedEmbedder(tmp_path / "e.sqlite", "m2", lambda: second)(["a"])
    assert second.asked == ["a"]


def test_a_vector_is_forgotten_when_nobody_asked_for_it_since(tmp_path: Path) -> None:
    file = tmp_path / "e.sqlite"
    assert forget_unused(file, utc_now()) == 0
    CachedEmbedder(file, "m", Counting)(["a", "b"])
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("UPDATE vectors SET day = day - 40")
    CachedEmbedder(file, "m", Counting)(["a"])
    before = utc_now() - timedelta(days=30)
    assert forget_unused(file, before, dry_run=True) == 1
    assert forget_unused(file, before) == 1
    encoder = Counting()
    CachedEmbedder(file, "m", lambda: encoder)(["a", "b"])
    assert encoder.asked == ["b"]


def test_a_file_from_before_days_were_kept_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "e.sqlite"
    encoder = Counting()
    CachedEmbedder(file, "m", lambda: encoder)(["a", "b"])
    with closing(sqlite3.connect(file)) as base, base:
        base.execute("CREATE TABLE older (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        base.execute("INSERT INTO older SELECT key, vector FROM vectors")
        base.execute("DROP TABLE vectors")
        base.execute("ALTER TABLE older RENAME TO vectors")
    CachedEmbedder(file, "m", lambda: encoder)(["a"])
    assert encoder.asked == ["a", "b"]
    assert forget_unused(file, utc_now()) == 1


def test_a_file_that_is_no_database_is_deleted(tmp_path: Path) -> None:
    file = tmp_path / "e.sqlite"
    file.write_text("these are words and no database, however long they may go on " * 20)
    assert forget_unused(file, utc_now(), dry_run=True) == 1
    assert file.is_file()
    assert forget_unused(file, utc_now()) == 1
    assert not file.exists()
