"""Sets that a manifest is about, at tens of bytes an element: leaves (SHA-256 digests) and feedback ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from data_contracts.digests import canonical_json

_PART = 65_536
SIZE = 32


class LeafSet:
    """Digests in any order, with repeats; `sorted_parts` gives each once, in order."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, leaf: str) -> None:
        """Add one digest (64 hex digits).

        Raises:
            ValueError: it is none.
        """
        raw = bytes.fromhex(leaf)
        if len(raw) != SIZE:
            raise ValueError(f"not a SHA-256 digest: {leaf!r}")
        self._bytes += raw

    def words(self) -> Any:
        """(n, 4) big-endian words in the order they were added; they compare like the digests."""
        import numpy as np

        return np.frombuffer(bytes(self._bytes), dtype=">u8").reshape(-1, 4)

    def sorted_parts(self) -> Iterator[list[bytes]]:
        """Distinct digests in ascending order, in lists of at most 65,536. Memory: about 80 bytes a digest."""
        import numpy as np

        words = self.words()
        order = np.lexsort((words[:, 3], words[:, 2], words[:, 1], words[:, 0]))
        previous = b""
        for start in range(0, len(order), _PART):
            raw = words[order[start : start + _PART]].tobytes()
            part = []
            for at in range(0, len(raw), SIZE):
                leaf = raw[at : at + SIZE]
                if leaf != previous:
                    part.append(leaf)
                    previous = leaf
            if part:
                yield part


class IdSet:
    """Feedback ids; empty ones do not count."""

    def __init__(self) -> None:
        self._fresh: list[str] = []
        self._arrays: list[Any] = []

    def add(self, row_id: str) -> None:
        """Add one id."""
        if row_id:
            self._fresh.append(row_id)
            if len(self._fresh) >= _PART:
                self._pack()

    def add_all(self, row_ids: Any) -> None:
        """Add a pyarrow array of ids."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._arrays.append(row_ids.filter(pc.not_equal(row_ids, "")).cast(pa.large_string()))

    def _pack(self) -> None:
        import pyarrow as pa

        self._arrays.append(pa.array(self._fresh, pa.large_string()))
        self._fresh = []

    def facts(self, inline: int) -> dict[str, Any]:
        """The manifest's fields: the ids where there are at most `inline`, how many, and the digest of all in order.

        The digest is that of the sorted ids as canonical JSON.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        self._pack()
        ids = pc.unique(pa.chunked_array(self._arrays, pa.large_string()))
        # UTF-8 sorts like code points, so this is the order of Python's `sorted`.
        ids = ids.take(pc.array_sort_indices(ids))
        sha = hashlib.sha256(b"[")
        for start in range(0, len(ids), _PART):
            part = canonical_json(ids.slice(start, _PART).to_pylist())[1:-1]
            sha.update((b"," if start else b"") + part)
        sha.update(b"]")
        return {
            "row_ids": tuple(ids.to_pylist()) if len(ids) <= inline else (),
            "row_ids_count": len(ids),
            "row_ids_digest": sha.hexdigest() if len(ids) else "",
        }
