"""Each distinct text is embedded once, for each model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from models.embedding_cache import CachedEmbedder


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
