"""Texts as sets of word 3-shingles and as MinHash bands, whole blocks at a time with numpy.

    shingle_sets(texts)  -> Sets: per text the sorted set of 32-bit hashes of its word 3-shingles
    band_keys(sets, ...) -> (bands, texts) uint32: texts that share a key in a band are candidates

The words are those of `overlap.words`, so similarities mean the same in both modules (but for a text without any word,
such as an emoji, which here is a shingle of its own). Two shingles of a pair of 40-word texts share a 32-bit hash by
chance about once in three million pairs, which moves the Jaccard similarity by one shingle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_contracts.overlap import SHINGLE, words

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
PERMUTATIONS = 128
RECALL = 0.985
"""Least chance that a pair exactly at the similarity shares a band; above it the chance is higher."""
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_PIECE = 2048
"""Shingles whose permuted values (1 MiB) are made at a time: they stay in the cache."""
BITS = 256
_BITMAP_ROWS = 16_384
# Word characters of ASCII keep (in lower case), all others become a space; bytes of UTF-8 sequences are left alone.
_FOLD = bytes(ord(chr(c).lower()) if c >= 128 or chr(c).isalnum() or c == 95 else 32 for c in range(128)) + bytes(
    range(128, 256)
)


class Sets(NamedTuple):
    """Sets of 32-bit hashes in one array: set i is `values[offsets[i]:offsets[i + 1]]`, ascending, without repeats."""

    offsets: I64
    values: U32
    bits: U64
    """(n, 4) bitmaps of 256 bits: each element sets one. Two sets differ in at least as many elements as bits."""

    @classmethod
    def of(cls, sizes: I64, values: U32) -> Sets:
        """From (n,) sizes and all values."""
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        bits = np.empty((len(sizes), BITS // 64), np.uint64)
        for start in range(0, len(sizes), _BITMAP_ROWS):
            own = sizes[start : start + _BITMAP_ROWS]
            flags = np.zeros((len(own), BITS), bool)
            part = values[offsets[start] : offsets[start + len(own)]]
            flags[np.repeat(np.arange(len(own)), own), part & np.uint32(BITS - 1)] = True
            bits[start : start + len(own)] = np.packbits(flags, axis=1, bitorder="little").view("<u8")
        return cls(offsets, values, bits)

    @property
    def sizes(self) -> I64:
        """(n,) elements of each set."""
        return np.diff(self.offsets)

    def take(self, rows: I64) -> Sets:
        """The sets of some rows, in their order."""
        sizes = self.sizes[rows]
        values = self.values[spread(self.offsets[rows], sizes)]
        return Sets(np.concatenate([[0], np.cumsum(sizes)]), values, self.bits[rows])


def spread(starts: I64, counts: I64) -> I64:
    """starts[0], starts[0] + 1, ... (counts[0] of them), starts[1], ..."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)


def mix(values: U64) -> U64:
    """The finaliser of SplitMix64: every bit of the input decides every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word_hash(word: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")


def _plain(text: str) -> bytes:
    """The text's words, in lower case, with a space between: ASCII as it is, the rest by `overlap.words`."""
    if text.isascii():
        return text.encode("ascii").translate(_FOLD)
    return " ".join(words(text)).encode("utf-8", "surrogatepass")


def _hashed_words(texts: Sequence[str]) -> tuple[U64, I64]:
    """64-bit hashes of all words in order, and (n,) how many each text has."""
    import pyarrow as pa

    parts = [_plain(text) for text in texts]
    lengths = np.fromiter(map(len, parts), np.int64, len(parts)) + 1
    data = np.frombuffer(b" ".join(parts) + b" ", np.uint8)
    letters = data != 32
    edges = np.flatnonzero(np.diff(letters, prepend=False))
    starts, ends = edges[::2], edges[1::2]
    counts = np.diff(np.searchsorted(starts, np.concatenate([[0], np.cumsum(lengths)])))
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    # The words without the spaces are an Arrow array as they are; its dictionary leaves few to hash one by one.
    buffers = [None, pa.py_buffer(offsets.astype(np.int64)), pa.py_buffer(data[letters])]
    coded = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(starts), buffers).dictionary_encode()
    table = np.fromiter(map(_word_hash, coded.dictionary.to_pylist()), np.uint64, len(coded.dictionary))
    return table[np.asarray(coded.indices)], counts


def _few_words(texts: Sequence[str], hashes: U64, starts: I64, counts: I64, rows: I64) -> U64:
    """The one shingle of texts with at most three words: all their words, or without any the text itself."""
    found = np.empty(len(rows), np.uint64)
    for place, row in enumerate(rows):
        own = hashes[starts[row] : starts[row] + counts[row]].tobytes()
        # The text itself, so that one emoji is not the near-duplicate of another.
        found[place] = _word_hash(own or b"\0" + " ".join(texts[row].split()).encode("utf-8", "surrogatepass"))
    return found


def shingle_sets(texts: Sequence[str]) -> Sets:
    """The sets of word 3-shingles (a shorter text is one shingle) as 32-bit hashes."""
    hashes, counts = _hashed_words(texts)
    starts = np.cumsum(counts) - counts
    many = counts > SHINGLE
    windows = np.where(many, counts - SHINGLE + 1, 0)
    at = spread(starts, windows)
    odd = [np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)]
    value = mix(sum((hashes[at + k] * odd[k] for k in range(SHINGLE)), np.zeros(len(at), np.uint64)))
    few = np.flatnonzero(~many)
    owner = np.concatenate([np.repeat(np.arange(len(texts)), windows), few]).astype(np.uint64)
    value = np.concatenate([value, _few_words(texts, hashes, starts, counts, few)])
    packed = (owner << _32) | (value >> _32)
    packed.sort()
    packed = packed[np.diff(packed, prepend=~packed[:1]) != 0]
    sizes = np.bincount((packed >> _32).astype(np.int64), minlength=len(texts))
    return Sets.of(sizes, (packed & _LOW).astype(np.uint32))


class Bands(NamedTuple):
    """How signatures are cut: `count` bands of `width` values each."""

    number: int
    width: int

    def recall(self, similarity: float) -> float:
        """Chance that a pair of that similarity shares a band: 1 - (1 - s^width)^number."""
        return 1.0 - (1.0 - similarity**self.width) ** self.number


def choose_bands(similarity: float, permutations: int = PERMUTATIONS) -> Bands:
    """The widest bands (fewest chance candidates) that still find pairs at the similarity, no more than needed."""
    for width in range(16, 0, -1):
        count = permutations // width
        if Bands(count, width).recall(similarity) >= RECALL or width == 1:
            enough = (n for n in range(1, count) if Bands(n, width).recall(similarity) >= 1 - (1 - RECALL) / 10)
            return Bands(next(enough, count), width)
    raise AssertionError("width 1 is always taken")


def permutations_of(seed: int, count: int) -> tuple[U32, U32]:
    """Odd multipliers and addends of `count` permutations x -> a x + b mod 2^32; the same for a seed everywhere."""
    raw = b"".join(hashlib.blake2b(f"{seed}:{n}".encode(), digest_size=8).digest() for n in range(count))
    pairs = np.frombuffer(raw, "<u4").astype(np.uint32).reshape(-1, 2)
    return pairs[:, 0] | np.uint32(1), pairs[:, 1].copy()


def band_keys(sets: Sets, bands: Bands, permutations: tuple[U32, U32]) -> U32:
    """(bands, n) keys: a hash of the `width` least permuted values of each band.

    MinHash (Broder, 1997) with linear permutations of hashes that are random already; two sets have the same least
    value under one permutation with a probability of their Jaccard similarity.
    """
    used = bands.number * bands.width
    multiply, add = (part[:used] for part in permutations)
    sizes = sets.sizes
    order = np.argsort(sizes, kind="stable")
    least = np.empty((len(sizes), used), np.uint32)
    at = 0
    while at < len(order):
        size = int(sizes[order[at]])
        rows = order[at : at + max(1, _PIECE // size)]
        rows = rows[sizes[rows] == size]
        least[rows] = _least(sets.values, sets.offsets[rows], size, multiply, add)
        at += len(rows)
    words_ = least.reshape(-1, bands.number, bands.width).astype(np.uint64)
    weights = np.frombuffer(hashlib.blake2b(b"bands", digest_size=64).digest() * 2, "<u8")[: bands.width] | np.uint64(1)
    # Each value is scrambled with its place before they are added, so that no two bands differ by a rotation only.
    total = np.zeros(words_.shape[:2], np.uint64)
    for k in range(bands.width):
        total += mix(words_[:, :, k] + weights[k])
    return np.ascontiguousarray((mix(total) >> _32).astype(np.uint32).T)


def _least(values: U32, starts: I64, size: int, multiply: U32, add: U32) -> U32:
    """(rows, permutations) least permuted values of sets of the same size."""
    found: Any = None
    for first in range(0, size, _PIECE):
        width = min(_PIECE, size - first)
        piece = values[starts[:, None] + np.arange(first, first + width)]
        permuted = piece[:, :, None] * multiply
        permuted += add
        best = permuted.min(axis=1)
        found = best if found is None else np.minimum(found, best)
    return np.asarray(found)
