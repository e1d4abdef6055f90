"""Which texts say nearly the same as one that is known already? A million known ones, and a thousand more in a blink.

    index = NearDuplicateIndex(0.7)                  # or NearDuplicateIndex.load(folder)
    index.add_all(["a", "b"], [text, nearly_text])   # [None, "a"]: b is not added
    index.save(folder)                               # writes only what is new since it was loaded

Similarity is the Jaccard similarity of word 3-shingles. MinHash bands (neardup_sketch) propose candidates, and each
candidate is compared with its whole set of shingles, so what is reported is at or above the similarity, but for
collisions of 32-bit hashes; a pair exactly at it is proposed with a probability of at least 98.5 %, one above it more
often. Only texts that are nobody's near-duplicate become known, so a flood of the same text stays one row.

The order of calls decides, nothing else: same texts in the same order give the same answers in every process.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np

from data_contracts.neardup_files import open_index, write_index
from data_contracts.neardup_segment import (
    Block,
    Limits,
    Segment,
    build,
    distinct,
    high,
    low,
    match,
    merge,
    pack,
    rank_in_group,
    similar,
)  # fmt: skip
from data_contracts.neardup_sketch import (
    I64,
    PERMUTATIONS,
    U64,
    Sets,
    band_keys,
    choose_bands,
    mix,
    permutations_of,
    shingle_sets,
    spread,
)

_BLOCK = 65_536
_BLOCK_CHARACTERS = 1 << 25
_SMALL = 64
_PAIRS_PER_ROW = 16
"""A block with more candidate pairs than this is split, so that its second half meets the first one's survivors."""
_FAN_OUT = 4
"""A part is merged into the one before it unless that is more than this many times larger."""


class NearDuplicateIndex:
    """Known texts; tells which new ones come near them.

    Args:
        similarity: Jaccard similarity of word 3-shingles in (0, 1] from which a text is a near-duplicate.
        seed: of the MinHash permutations.
        permutations: values of a MinHash signature.
        limits: what bounds the work among texts that all look alike.

    Raises:
        ValueError: a similarity outside (0, 1].
    """

    def __init__(
        self, similarity: float, *, seed: int = 0, permutations: int = PERMUTATIONS, limits: Limits | None = None
    ) -> None:
        if not 0 < similarity <= 1:
            raise ValueError(f"similarity must be in (0, 1], found {similarity}")
        self.similarity = similarity
        self.seed = seed
        self.permutations = permutations
        self.limits = limits or Limits()
        self._bands = choose_bands(similarity, permutations)
        self._permutations = permutations_of(seed, permutations)
        self._segments: list[Segment] = []
        self._files: list[str | None] = []
        """Per segment the file that holds it, None if it is in memory only."""
        self._generation = 0

    def __len__(self) -> int:
        """Known texts."""
        return sum(map(len, self._segments))

    # --- adding --------------------------------------------------------------------------------

    def add_all(self, names: Sequence[str], texts: Sequence[str]) -> list[str | None]:
        """For each text, in order: the earliest known name it nearly repeats, or None, and then it becomes known.

        Args:
            names: what to call the texts; (n,). A name may come again (it then can be its own near-duplicate).
            texts: (n,).
        """
        if len(names) != len(texts):
            raise ValueError(f"as many names as texts, found {len(names)} and {len(texts)}")
        answers: list[str | None] = []
        start = 0
        while start < len(texts):
            stop, characters = start, 0
            while stop < len(texts) and stop - start < _BLOCK and (characters < _BLOCK_CHARACTERS or stop == start):
                characters += len(texts[stop])
                stop += 1
            answers += self._add_block(names[start:stop], texts[start:stop])
            start = stop
        return answers

    def match_all(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the earliest known name it nearly repeats, or None; nothing becomes known. (n,)."""
        answers: list[str | None] = []
        for start in range(0, len(texts), _BLOCK):
            sets = shingle_sets(texts[start : start + _BLOCK])
            block = Block(sets, self._keys(sets))
            answers += self._known(block)[0]
        return answers

    def _known(self, block: Block) -> tuple[list[str | None], I64]:
        """For each row of a block the earliest known name it nearly repeats, and the rows that repeat none."""
        answers: list[str | None] = [None] * len(block.sets.sizes)
        still = np.arange(len(answers))
        for segment in self._segments:
            found = match(segment, block, still, self.similarity, self.limits)
            for row, known in zip(still[found >= 0], found[found >= 0], strict=True):
                answers[row] = segment.names.get(int(known))
            still = still[found < 0]
        return answers, still

    def _add_block(self, names: Sequence[str], texts: Sequence[str]) -> list[str | None]:
        sets = shingle_sets(texts)
        first, same = _same_sets(sets)
        # Texts with the very same shingles share their answer: only the first of each is looked up.
        block = Block(sets.take(first), self._keys(sets.take(first)))
        answers, still = self._known(block)
        leads = np.full(len(first), -1, np.int64)
        self._resolve(block, still, leads)
        for row in np.flatnonzero(leads >= 0):
            answers[row] = names[first[leads[row]]]
        fresh = still[leads[still] < 0]
        if len(fresh):
            self._append(build(block, fresh, self.limits, [names[first[row]] for row in fresh]))
        result = [answers[row] for row in same]
        repeats = np.flatnonzero(first[same] != np.arange(len(same)))
        for row in repeats:
            result[row] = result[row] or names[first[same[row]]]
        return result

    def _keys(self, sets: Sets) -> np.ndarray:
        return band_keys(sets, self._bands, self._permutations)

    def _resolve(self, block: Block, rows: I64, leads: I64) -> None:
        """Find the near-duplicates among some rows of a block: `leads[row]` becomes the earliest surviving other."""
        if len(rows) < 2:
            return
        if len(rows) <= _SMALL or _pair_count(block, rows) <= _PAIRS_PER_ROW * len(rows):
            self._compare(block, rows, leads)
            return
        early, late = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        self._resolve(block, early, leads)
        survivors = early[leads[early] < 0]
        found = match(build(block, survivors, self.limits), block, late, self.similarity, self.limits)
        leads[late[found >= 0]] = survivors[found[found >= 0]]
        self._resolve(block, late[found < 0], leads)

    def _compare(self, block: Block, rows: I64, leads: I64) -> None:
        """Compare all pairs that share a bucket; then, in order, whoever is near a survivor does not survive."""
        pairs = _pairs(block, rows)  # later place << 32 | earlier place
        near = similar(block.sets, rows[high(pairs)], block.sets, rows[low(pairs)], self.similarity)
        for late, early in zip(high(pairs[near]).tolist(), low(pairs[near]).tolist(), strict=True):
            if leads[rows[late]] < 0 and leads[rows[early]] < 0:
                leads[rows[late]] = rows[early]

    def _append(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._files.append(None)
        while len(self._segments) > 1 and len(self._segments[-2]) <= _FAN_OUT * len(self._segments[-1]):
            last, before = self._segments.pop(), self._segments.pop()
            self._segments.append(merge(before, last, self.limits))
            del self._files[-2:]
            self._files.append(None)

    # --- forgetting ----------------------------------------------------------------------------

    def forget(self, names: Set[str]) -> int:
        """Remove known texts by name: their shingles and names leave the index (and with `save` the folder).

        Returns:
            How many were known.
        """
        removed = 0
        for place, segment in enumerate(self._segments):
            known = segment.names.all()
            kept = np.array([row for row, name in enumerate(known) if name not in names], np.int64)
            if len(kept) == len(known):
                continue
            removed += len(known) - len(kept)
            # From the sets anew: a bucket that was full may list rows now that it had refused.
            sets = segment.sets.take(kept)
            block = Block(sets, self._keys(sets))
            self._segments[place] = build(block, np.arange(len(kept)), self.limits, [known[row] for row in kept])
            self._files[place] = None
        return removed

    # --- on disk -------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write what is new since `load` or the last `save`, the list of parts last; a crash leaves the old index.

        Raises:
            StoreError: another process saved into the folder meanwhile, or it holds another kind of index.
        """
        self._files, self._generation = write_index(
            Path(folder), self._settings(), self._segments, self._files, self._generation
        )

    @classmethod
    def load(cls, folder: Path | str) -> NearDuplicateIndex:
        """Open a saved index; its files are memory-mapped, so that this takes milliseconds whatever its size.

        Raises:
            StoreError: no index there, or one that is damaged or of another version.
        """
        settings, segments, files, generation = open_index(Path(folder))
        index = cls(
            settings["similarity"],
            seed=settings["seed"],
            permutations=settings["permutations"],
            limits=Limits(settings["cap"], settings["crowded"]),
        )
        index._segments, index._files, index._generation = segments, list(files), generation
        return index

    def _settings(self) -> dict[str, float | int]:
        facts = {"similarity": self.similarity, "seed": self.seed, "permutations": self.permutations}
        return {**facts, **self.limits._asdict()}


def _same_sets(sets: Sets) -> tuple[I64, I64]:
    """(first row of each distinct set, ascending; per row the place of its set in that list)."""
    # Two independent 64-bit sums of scrambled shingles stand for a set; its size is in both.
    sums = []
    for add in (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03):
        scrambled = np.concatenate([[np.uint64(0)], np.cumsum(mix(sets.values + np.uint64(add)), dtype=np.uint64)])
        sums.append(scrambled[sets.offsets[1:]] - scrambled[sets.offsets[:-1]])
    both = np.stack(sums, axis=1)
    _, first, same = np.unique(both, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return first[order].astype(np.int64), place[same.reshape(-1)]


def _pair_count(block: Block, rows: I64) -> int:
    """Pairs that share a bucket, counted once per band."""
    total = 0
    for keys in block.keys:
        _, sizes = np.unique(keys[rows], return_counts=True)
        total += int((sizes * (sizes - 1) // 2).sum())
    return total


def _pairs(block: Block, rows: I64) -> U64:
    """Pairs of places that share a bucket, each once: later << 32 | earlier, sorted."""
    found = [np.empty(0, np.uint64)]
    places = np.arange(len(rows))
    for keys in block.keys:
        packed = pack(keys[rows], places)
        packed.sort()
        rank = rank_in_group(packed >> np.uint64(32))
        later = np.flatnonzero(rank)
        counts = rank[later]
        place = low(packed)
        found.append(pack(np.repeat(place[later], counts), place[spread(later - counts, counts)]))
    return distinct(np.concatenate(found))
