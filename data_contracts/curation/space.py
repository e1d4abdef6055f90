"""How alike prompts are: sentence embeddings where an embedder is given, else words and letters (TF-IDF).

Up to EXACT prompts are compared with each other; above, each with those of the cells around it (k-means cells with
sampled centres), about m^1.5 comparisons for m prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_contracts.curation.results import Embed
from data_contracts.overlap import prompt_key

EXACT = 20_000
DENSE_BASELINE = 0.3
"""Cosine of two sentences of one domain that have nothing to do with each other (all-MiniLM-L6-v2, Banking77)."""
_BLOCK = 512
_PROBES = 6
_PROJECTED = 128
"""Dimensions of a random projection of lexical vectors above EXACT; cosines are then right within about 0.1."""


class Space:
    """m texts as unit vectors, dense or sparse.

    Args:
        vectors: (m, d) numpy array or scipy CSR matrix, rows of length 1.
        baseline: similarity that counts as none.
        dense: whether they are embeddings: only those say that prompts in other words are alike.
    """

    def __init__(self, vectors: Any, *, baseline: float, dense: bool) -> None:
        self._vectors = vectors
        self.baseline = baseline
        self.dense = dense

    def __len__(self) -> int:
        return int(self._vectors.shape[0])

    def block(self, some: np.ndarray, others: np.ndarray) -> np.ndarray:
        """float32 (some, others): cosines."""
        product = self._vectors[some] @ self._vectors[others].T
        return np.asarray(product.todense() if hasattr(product, "todense") else product, dtype=np.float32)

    def nearest(self, count: int, exact: int = EXACT) -> tuple[np.ndarray, np.ndarray]:
        """int32 and float32 (m, min(count, m)): the most similar texts of each, itself among them, and cosines.

        Where cells hold too few the rest is filled with similarity -1.
        """
        size = len(self)
        count = min(count, size)
        places = np.zeros((size, count), dtype=np.int32)
        likeness = np.full((size, count), -1.0, dtype=np.float32)
        everything = np.arange(size)
        groups = ((everything[low : low + _BLOCK], everything) for low in range(0, size, _BLOCK))
        for some, others in groups if size <= exact else _cells(self._vectors):
            found = self.block(some, others)
            keep = min(count, found.shape[1])
            best = np.argpartition(-found, keep - 1, axis=1)[:, :keep]
            places[some, :keep] = others[best]
            likeness[some, :keep] = np.take_along_axis(found, best, axis=1)
        return places, likeness


def _cells(vectors: np.ndarray) -> Any:
    """(members of a cell, members of the cells around it), never more than a few times the mean size at once."""
    size = len(vectors)
    rng = np.random.default_rng(0)
    cells = int(size**0.5)
    centres = vectors[np.sort(rng.choice(size, cells, replace=False))]
    cell = np.concatenate([(vectors[i : i + 8192] @ centres.T).argmax(axis=1) for i in range(0, size, 8192)])
    order = np.argsort(cell, kind="stable")
    bounds = np.searchsorted(cell[order], np.arange(cells + 1))
    around = np.argsort(-(centres @ centres.T), axis=1)[:, :_PROBES]
    most = 4 * _PROBES * size // cells
    for k in range(cells):
        members = order[bounds[k] : bounds[k + 1]]
        others = np.concatenate([order[bounds[c] : bounds[c + 1]] for c in around[k]])
        if len(others) > most:
            # A cell of many texts that are nearly the same: a sample of them speaks for the rest.
            others = np.sort(rng.choice(others, most, replace=False))
        for low in range(0, len(members), _BLOCK):
            yield members[low : low + _BLOCK], others


def space_of(texts: Sequence[str], embed: Embed | None) -> Space:
    """The texts (distinct prompts) as vectors."""
    if embed is not None:
        return Space(np.asarray(embed(texts), dtype=np.float32), baseline=DENSE_BASELINE, dense=True)
    vectors = _lexical(texts)
    if len(texts) > EXACT:
        vectors = _projected(vectors)
    return Space(vectors, baseline=0.0, dense=False)


def _lexical(texts: Sequence[str]) -> Any:
    """Sparse unit rows: half words, half character 3- to 5-grams, TF-IDF; words and pairs only for a large set."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    keys = [prompt_key(text) or "-" for text in texts]
    pattern = r"(?u)\S+"
    if len(texts) > EXACT:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

        counts = HashingVectorizer(
            n_features=2**18,
            alternate_sign=False,
            norm=None,
            token_pattern=pattern,
            ngram_range=(1, 2),
            dtype=np.float32,
        ).transform(keys)
        return TfidfTransformer(sublinear_tf=True).fit_transform(counts).tocsr()
    by_word = TfidfVectorizer(sublinear_tf=True, token_pattern=pattern).fit_transform(keys)
    by_chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(keys)
    return (hstack([by_word, by_chars]) * 0.5**0.5).tocsr()


def _projected(vectors: Any) -> np.ndarray:
    """(m, 128) float32 unit rows: signed random projection."""
    rng = np.random.default_rng(0)
    signs = rng.choice(np.array([-1.0, 1.0], dtype=np.float32), (vectors.shape[1], _PROJECTED))
    dense = np.asarray(vectors @ signs, dtype=np.float32)
    return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-9)
