"""A part of a near-duplicate index: known rows, their shingles, and where each band's keys lead. Never changed.

    names, sets                     of the rows, in the order they became known
    bands[b]                        sorted uint64: key << 32 | row
    crowded                         sorted uint64: shingle << 32 | row

A bucket (one key of one band) lists its first `Limits.cap` rows only. A row that found a bucket full is *crowded*: all
its shingles are put into `crowded`. Who looks into a full bucket also looks up its rarest shingles there. Two sets with
a Jaccard similarity >= t share one of any |A| - ceil(t |A|) + 1 shingles of A (Chaudhuri, Ganti and Kaushik, 2006), so
that finds every crowded row that the bucket would have listed: the cap costs no recall, and rows that all look alike
do not cost the square of their number. Only where even a text's rarest shingles are in more crowded rows than
`Limits.crowded` may one be missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_contracts.neardup_sketch import I64, U32, U64, Sets, spread


class Limits(NamedTuple):
    """What keeps rows that all look alike from costing the square of their number."""

    cap: int = 16
    """Rows a bucket lists."""
    crowded: int = 128
    """Most crowded rows one text is compared with, those with its rarest shingles first."""


_VALUES = 1 << 22
"""Shingles of pairs that are compared at a time: bounds memory."""
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_NONE = np.empty(0, np.uint64)


def pack(high: np.ndarray, low: np.ndarray) -> U64:
    """High << 32 | low."""
    return (high.astype(np.uint64) << _32) | low.astype(np.uint64)


def high(packed: U64) -> I64:
    """The upper halves."""
    return (packed >> _32).astype(np.int64)


def low(packed: U64) -> I64:
    """The lower halves."""
    return (packed & _LOW).astype(np.int64)


def distinct(packed: U64) -> U64:
    """Sorted, each once. Sorts in place."""
    packed.sort()
    return packed[np.diff(packed, prepend=~packed[:1]) != 0]


def rank_in_group(groups: np.ndarray) -> I64:
    """Place of each element among the equal ones before it; `groups` is sorted."""
    first = np.flatnonzero(np.diff(groups, prepend=~groups[:1]) != 0)
    return np.arange(len(groups)) - np.repeat(first, np.diff(np.append(first, len(groups))))


class Block(NamedTuple):
    """Texts that are being looked up: their sets and (bands, n) keys."""

    sets: Sets
    keys: U32


class Segment(NamedTuple):
    """See the module."""

    sets: Sets
    bands: tuple[U64, ...]
    crowded: U64
    names: Names

    def __len__(self) -> int:
        return len(self.sets.offsets) - 1


class Names(NamedTuple):
    """UTF-8 names in one array."""

    offsets: I64
    data: np.ndarray

    @classmethod
    def of(cls, names: Sequence[str]) -> Names:
        """Pack names."""
        parts = [name.encode("utf-8", "surrogatepass") for name in names]
        sizes = np.fromiter(map(len, parts), np.int64, len(parts))
        return cls(np.concatenate([[0], np.cumsum(sizes)]), np.frombuffer(b"".join(parts), np.uint8))

    def get(self, row: int) -> str:
        """One name."""
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode("utf-8", "surrogatepass")

    def all(self) -> list[str]:
        """All names in order."""
        return [self.get(row) for row in range(len(self.offsets) - 1)]


def build(block: Block, rows: I64, limits: Limits, names: Sequence[str] = ()) -> Segment:
    """The rows of a block as a segment of their own."""
    sets = block.sets.take(rows)
    places = np.arange(len(rows))
    bands = [pack(keys, places) for keys in block.keys[:, rows]]
    return _capped(sets, bands, _NONE, Names.of(names), limits.cap)


def _capped(sets: Sets, bands: Sequence[U64], crowded: U64, names: Names, cap: int) -> Segment:
    """List at most `cap` rows a bucket; the shingles of the others join `crowded`."""
    listed, refused = [], [np.empty(0, np.int64)]
    for packed in bands:
        packed.sort()
        fits = rank_in_group(packed >> _32) < cap
        listed.append(packed[fits])
        refused.append(low(packed[~fits]))
    rows = np.unique(np.concatenate(refused))
    more = sets.take(rows)
    joined = np.concatenate([crowded, pack(more.values, np.repeat(rows, more.sizes))])
    return Segment(sets, tuple(listed), distinct(joined), names)


def merge(one: Segment, two: Segment, limits: Limits) -> Segment:
    """Both as one, the rows of `two` after those of `one`."""
    shift = np.uint64(len(one))
    sets = Sets(
        np.concatenate([one.sets.offsets, two.sets.offsets[1:] + one.sets.offsets[-1]]),
        np.concatenate([one.sets.values, two.sets.values]),
        np.concatenate([one.sets.bits, two.sets.bits]),
    )
    names = Names(
        np.concatenate([one.names.offsets, two.names.offsets[1:] + one.names.offsets[-1]]),
        np.concatenate([one.names.data, two.names.data]),
    )
    bands = [np.concatenate([a, b + shift]) for a, b in zip(one.bands, two.bands, strict=True)]
    return _capped(sets, bands, np.concatenate([one.crowded, two.crowded + shift]), names, limits.cap)


def match(segment: Segment, block: Block, rows: I64, similarity: float, limits: Limits) -> I64:
    """Per row of the block the first known row at or above the similarity (its place in the segment), or -1."""
    found = np.full(len(rows), -1, np.int64)
    if not len(rows) or not len(segment):
        return found
    candidates, full = _listed(segment, block, rows, limits.cap)
    if len(full):
        candidates = distinct(
            np.concatenate([candidates, _rarest(segment, block.sets, rows, full, similarity, limits.crowded)])
        )
    pairs = candidates[similar(block.sets, rows[high(candidates)], segment.sets, low(candidates), similarity)]
    # Pairs are in order, so the first of a row is its earliest.
    asked, first = np.unique(high(pairs), return_index=True)
    found[asked] = low(pairs[first])
    return found


def _listed(segment: Segment, block: Block, rows: I64, cap: int) -> tuple[U64, I64]:
    """(place in rows << 32 | known row) of all that share a bucket, and the places that met a full bucket."""
    found, full = [_NONE], [np.empty(0, np.int64)]
    places = np.arange(len(rows))
    for band, keys in zip(segment.bands, block.keys, strict=True):
        asked = pack(keys[rows], places)
        asked.sort()  # neighbours in the question are neighbours in the band: the search stays in the cache
        key = asked & ~_LOW
        start = np.searchsorted(band, key)
        counts = np.searchsorted(band, key | _LOW, side="right") - start
        hit = np.flatnonzero(counts)
        place, counts = low(asked[hit]), counts[hit]
        found.append(pack(np.repeat(place, counts), low(band[spread(start[hit], counts)])))
        full.append(place[counts >= cap])
    return distinct(np.concatenate(found)), np.unique(np.concatenate(full))


def _rarest(segment: Segment, sets: Sets, rows: I64, places: I64, similarity: float, budget: int) -> U64:
    """Crowded rows that share one of the rarest shingles of the rows at these places."""
    if not len(segment.crowded):
        return _NONE
    own = sets.take(rows[places])
    owner = np.repeat(np.arange(len(places)), own.sizes)
    key = own.values.astype(np.uint64) << _32
    start = np.searchsorted(segment.crowded, key)
    counts = np.searchsorted(segment.crowded, key | _LOW, side="right") - start
    order = np.argsort(pack(owner, np.minimum(counts, 2**32 - 1)), kind="stable")
    owner, start, counts = owner[order], start[order], counts[order]
    needed = own.sizes - np.ceil(similarity * own.sizes - 1e-9).astype(np.int64) + 1
    keep = (rank_in_group(owner) < needed[owner]) & (counts > 0)
    owner, start, counts = owner[keep], start[keep], counts[keep]
    before = np.cumsum(counts) - counts
    first = np.flatnonzero(rank_in_group(owner) == 0)
    before -= np.repeat(before[first], np.diff(np.append(first, len(owner))))
    counts = np.minimum(counts, np.maximum(budget - before, 0))
    return pack(np.repeat(places[owner], counts), low(segment.crowded[spread(start, counts)]))


def similar(one: Sets, rows: I64, other: Sets, others: I64, similarity: float) -> np.ndarray:
    """(pairs,) True where the Jaccard similarity of one[rows[i]] and other[others[i]] reaches the bound."""
    sizes, other_sizes = one.sizes[rows], other.sizes[others]
    # The smaller set over the larger bounds the similarity from above.
    near = np.minimum(sizes, other_sizes) >= (similarity - 1e-9) * np.maximum(sizes, other_sizes)
    kept = np.flatnonzero(near)
    # J >= t means |A xor B| <= (1 - t) / (1 + t) (|A| + |B|); the bitmaps show a part of what differs (Sandes et al.,
    # 2020) and so throw out most of what only looks alike, and nothing that is near.
    differ = np.bitwise_count(one.bits[rows[kept]] ^ other.bits[others[kept]]).sum(axis=1, dtype=np.int64)
    near[kept] = differ <= (1 - similarity) / (1 + similarity) * (sizes + other_sizes)[kept] + 1e-6
    kept = np.flatnonzero(near)
    ends = np.cumsum(sizes[kept] + other_sizes[kept])
    start = 0
    while start < len(kept):
        stop = max(start + 1, int(np.searchsorted(ends, (ends[start - 1] if start else 0) + _VALUES)))
        part = kept[start:stop]
        shared = _shared(one, rows[part], other, others[part])
        near[part] = shared >= (similarity - 1e-9) * (sizes[part] + other_sizes[part] - shared)
        start = stop
    return near


def _shared(one: Sets, rows: I64, other: Sets, others: I64) -> I64:
    """(pairs,) elements in both sets."""
    places = np.arange(len(rows))
    sizes, other_sizes = one.sizes[rows], other.sizes[others]
    both = np.concatenate([
        pack(np.repeat(places, sizes), one.values[spread(one.offsets[rows], sizes)]),
        pack(np.repeat(places, other_sizes), other.values[spread(other.offsets[others], other_sizes)]),
    ])  # fmt: skip
    both.sort()
    # A set has each shingle once, so what stands there twice is in both.
    return np.bincount(high(both[1:][both[1:] == both[:-1]]), minlength=len(rows))
