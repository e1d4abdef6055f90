"""A key-value cache of rows for continuous batching: a new request takes a free row, a finished one frees it.

One buffer (layers, 2, rows, kv_heads, length, head_dim); the active rows are 0..n-1. A row's tokens start at position
0 (no left padding), so rows of different lengths share a forward pass under a mask and a newcomer moves nobody.
Implements the two methods transformers' attention asks of a cache.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 128


class RowCache:
    """Keys and values of up to `rows` sequences."""

    def __init__(self, *, layers: int, rows: int, heads: int, head_dim: int, dtype: Any, device: Any) -> None:
        self._shape = (layers, 2, rows, heads, 0, head_dim)
        self._buffer = torch.zeros(self._shape, dtype=dtype, device=device)
        self._rows = slice(0, 0)
        self._length = 0
        self._positions: torch.Tensor | None = None
        self._index: torch.Tensor | None = None
        self._start = 0

    @property
    def capacity(self) -> int:
        """Tokens a row can hold before the buffer grows."""
        return int(self._buffer.shape[4])

    def reserve(self, length: int) -> None:
        """Make room for rows of `length` tokens."""
        if length <= self.capacity:
            return
        grown = -(-length // CHUNK) * CHUNK
        old = self._buffer
        # Zeros, not empty: a masked position still enters 0 * value, and 0 * NaN is NaN.
        self._buffer = torch.zeros((*old.shape[:4], grown, old.shape[5]), dtype=old.dtype, device=old.device)
        self._buffer[:, :, :, :, : old.shape[4]] = old

    def begin_prefill(self, first: int, count: int, start: int, width: int) -> None:
        """The next forward pass writes tokens start..start+width-1 of rows first..first+count-1."""
        self.reserve(start + width)
        self._rows = slice(first, first + count)
        self._start, self._length, self._positions = start, start + width, None

    def begin_decode(self, positions: torch.Tensor, longest: int) -> None:
        """The next forward pass writes one token of each active row, at these positions (n,)."""
        self.reserve(longest + 1)
        count = int(positions.shape[0])
        self._rows = slice(0, count)
        self._positions, self._length = positions, longest + 1
        self._index = torch.arange(count, device=self._buffer.device)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store (B, H, T, D) and return the rows' keys and values (B, H, length, D)."""
        both = self._buffer[layer]
        for store, new in ((both[0], keys), (both[1], values)):
            if self._positions is None:
                store[self._rows, :, self._start : self._length] = new
            else:
                store[self._index, :, self._positions] = new[:, :, 0]
        return both[0, self._rows, :, : self._length], both[1, self._rows, :, : self._length]

    def get_seq_length(self, _layer: int = 0) -> int:
        """Tokens before this pass (only used where no position ids are given)."""
        return self._start

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row to another row."""
        self._buffer[:, :, target, :, :length] = self._buffer[:, :, source, :, :length]

    def read(self, row: int, length: int) -> torch.Tensor:
        """A copy of the first `length` tokens of a row (layers, 2, H, length, D)."""
        return self._buffer[:, :, row, :, :length].clone()

    def write(self, row: int, block: torch.Tensor) -> None:
        """Put a block from `read` at the start of a row."""
        self.reserve(block.shape[3])
        self._buffer[:, :, row, :, : block.shape[3]] = block
