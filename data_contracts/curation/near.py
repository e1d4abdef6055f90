"""Clusters of near-duplicate texts by word shingles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_contracts.neardup import NearDuplicateIndex
from data_contracts.overlap import NearIndex

LARGE = 20_000
"""From so many texts on, MinHash (`data_contracts.neardup`); below, exactly."""


def first_alike(texts: Sequence[str], similarity: float, *, large: int = LARGE) -> np.ndarray:
    """int32 (n,): for each text the place of the earliest text it near-duplicates; its own if there is none.

    Only texts that are their own first are compared with, so what a text belongs to never changes as more arrive.
    """
    found = np.arange(len(texts), dtype=np.int32)
    if len(texts) >= large:
        return _by_minhash(texts, similarity)
    index = NearIndex(similarity)
    for place, text in enumerate(texts):
        earlier = next(index.matches(text), None)
        if earlier is None:
            index.add(str(place), text)
        else:
            found[place] = int(earlier)
    return found


def _by_minhash(texts: Sequence[str], similarity: float) -> np.ndarray:
    names = NearDuplicateIndex(similarity).add_all([str(place) for place in range(len(texts))], texts)
    return np.array([place if name is None else int(name) for place, name in enumerate(names)], dtype=np.int32)
