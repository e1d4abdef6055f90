"""Repeated values across batches, exactly, in memory of eight bytes a row.

Each value's 64-bit hash is kept; the values themselves go to a temporary Arrow file. Rows whose hash occurs twice are
read back and handed to Great Expectations, groups of equal hashes together: equal values have equal hashes, so no
repeat is missed, and different values with one hash are told apart by their values.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

GROUP = 200_000
"""Rows handed over at once, unless one value repeats more often."""


class Repeats:
    """The values of one column seen so far."""

    def __init__(self, column: str) -> None:
        self.column = column
        self._hashes: list[np.ndarray] = []
        self._starts: list[int] = []
        self._rows = 0
        self._folder = tempfile.TemporaryDirectory(prefix="tidemill-unique-")
        self._path = Path(self._folder.name) / "values.arrow"
        self._sink: Any = None

    def add(self, values: pa.Array) -> None:
        """The next batch's column."""
        import pyarrow as pa
        from pandas.util import hash_array

        if self._sink is None:
            self._schema = pa.schema([pa.field(self.column, values.type)])
            self._sink = pa.ipc.new_file(os.fspath(self._path), self._schema)
        self._sink.write_batch(pa.RecordBatch.from_arrays([values], schema=self._schema))
        self._starts.append(self._rows)
        self._rows += len(values)
        self._hashes.append(hash_array(values.to_numpy(zero_copy_only=False), categorize=False))

    def candidates(self) -> Iterator[tuple[np.ndarray, pa.Array]]:
        """Groups of (places, values) whose hashes repeat; all rows with one value are in one group."""
        import pyarrow as pa

        if not self._rows:
            return
        self._sink.close()
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        same = ordered[1:] == ordered[:-1]
        twice = np.concatenate([[False], same]) | np.concatenate([same, [False]])
        places, keys = order[twice], ordered[twice]
        if not len(places):
            return
        cuts = [0]
        for edge in np.flatnonzero(np.concatenate([keys[1:] != keys[:-1], [True]])) + 1:
            if edge - cuts[-1] >= GROUP or edge == len(keys):
                cuts.append(int(edge))
        with pa.memory_map(os.fspath(self._path)) as source:
            table = pa.ipc.open_file(source).read_all().column(self.column)
            for low, high in itertools.pairwise(cuts):
                part = np.sort(places[low:high])
                yield part, table.take(pa.array(part)).combine_chunks()

    def close(self) -> None:
        """Remove the temporary file."""
        if self._sink is not None:
            self._sink.close()
        self._folder.cleanup()
