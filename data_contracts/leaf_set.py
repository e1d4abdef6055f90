"""A set of SHA-256 digests at 32 bytes each, read out sorted."""

from __future__ import annotations

from collections.abc import Iterator

_PART = 65_536
SIZE = 32


class LeafSet:
    """Digests in any order, with repeats; `sorted_parts` gives each once, in order."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, leaf: str) -> None:
        """Add one digest (64 hex digits)."""
        raw = bytes.fromhex(leaf)
        if len(raw) != SIZE:
            raise ValueError(f"not a SHA-256 digest: {leaf!r}")
        self._bytes += raw

    def sorted_parts(self) -> Iterator[list[bytes]]:
        """Distinct digests in ascending order, in lists of at most 65,536. Memory: about 80 bytes a digest."""
        import numpy as np

        # Big-endian words compare like the bytes, and like the hex digits.
        words = np.frombuffer(bytes(self._bytes), dtype=">u8").reshape(-1, 4)
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
