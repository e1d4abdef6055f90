"""Continuous batching on one thread: rows join at prefill, advance one token per `step`, leave when they are done.

A batch mixes adapters: each row names its version, and one forward pass serves them all (see `adapter_mix`).
The keys and values of a system message are computed once per version and copied into later rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from data_contracts.records import BASE_VERSION
from models.sampling import Sampler, next_tokens
from serving.engines.adapter_mix import BASE_NAME, AdapterMix
from serving.engines.base import Delta, FinishReason
from serving.engines.kv_cache import RowCache
from serving.engines.text_stream import Detokenizer, StopScanner

MIN_SHARED = 8
"""Shorter system messages are not worth keeping."""
KEPT_PREFIXES = 16
PREFILL_WASTE = 1.25
"""Prompts are prefilled together while padding costs at most a quarter."""


@dataclass
class Row:
    """One request in the batch."""

    ids: list[int]
    shared: int
    version: str
    max_tokens: int
    sampler: Sampler
    scanner: StopScanner
    detokenizer: Detokenizer
    emit: Callable[[Delta | Exception], None]
    cancelled: bool = False
    generated: list[int] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens whose keys and values are in the cache: all but the newest."""
        return len(self.ids) + len(self.generated) - 1

    @property
    def prefix_key(self) -> tuple[str, tuple[int, ...]] | None:
        return (self.version, tuple(self.ids[: self.shared])) if self.shared >= MIN_SHARED else None


class Batch:
    """A causal language model and the rows it is answering.

    Args:
        model: a transformers causal LM in eval mode; LoRA layers may be injected later.
        eos: token ids that end an answer.
        rows: most rows at a time.
    """

    def __init__(self, model: Any, eos: frozenset[int], rows: int) -> None:
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        self._model = model
        self._device = model.device
        self._eos = eos
        self._limit = rows
        self._cache = RowCache(
            layers=config.num_hidden_layers,
            rows=rows,
            heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            dtype=model.dtype,
            device=model.device,
        )
        self._prefixes: OrderedDict[tuple[str, tuple[int, ...]], torch.Tensor] = OrderedDict()
        self.mix = AdapterMix()
        self.adapters = False
        self.rows: list[Row] = []

    @property
    def free(self) -> int:
        """Rows that may join."""
        return self._limit - len(self.rows)

    def forget(self, version: str) -> None:
        """Drop what is kept of a version's prefixes."""
        for key in [k for k in self._prefixes if k[0] == version]:
            del self._prefixes[key]

    def join(self, newcomers: Sequence[Row]) -> None:
        """Prefill new rows (at most `free`) and give each its first token."""
        groups: dict[int, list[Row]] = {}
        for row in newcomers:
            key = row.prefix_key
            groups.setdefault(row.shared if key in self._prefixes else 0, []).append(row)
        for start, group in groups.items():
            for chunk in _chunks(sorted(group, key=lambda r: len(r.ids)), start):
                self._prefill(chunk, start)
        self._leave()

    def step(self) -> None:
        """One more token for every row; finished and cancelled rows leave."""
        self._leave()
        if not self.rows:
            return
        lengths = [row.length for row in self.rows]
        positions = torch.tensor(lengths, device=self._device)
        longest = max(lengths)
        self._cache.begin_decode(positions, longest)
        mask = torch.arange(longest + 1, device=self._device) <= positions[:, None]
        newest = torch.tensor([[row.generated[-1]] for row in self.rows], device=self._device)
        logits = self._forward(self.rows, newest, mask[:, None, None, :], positions[:, None], 1)
        self._advance(self.rows, logits[:, -1])
        self._leave()

    def fail(self) -> list[Row]:
        """Empty the batch after an error, returning its rows."""
        rows, self.rows = self.rows, []
        return rows

    def _prefill(self, chunk: list[Row], start: int) -> None:
        first, count = len(self.rows), len(chunk)
        lengths = [len(row.ids) - start for row in chunk]
        width = max(lengths)
        self._cache.begin_prefill(first, count, start, width)
        if start:
            for offset, row in enumerate(chunk):
                key = row.prefix_key
                assert key is not None  # noqa: S101 - only rows with a kept prefix start after it
                self._prefixes.move_to_end(key)
                self._cache.write(first + offset, self._prefixes[key])
        ids = torch.zeros((count, width), dtype=torch.long)
        for offset, row in enumerate(chunk):
            ids[offset, : lengths[offset]] = torch.tensor(row.ids[start:])
        positions = torch.arange(start, start + width, device=self._device)
        mask = torch.arange(start + width, device=self._device)[None, :] <= positions[:, None]
        # The head runs only where a prompt of this chunk ends.
        ends = sorted({length - 1 for length in lengths})
        logits = self._forward(
            chunk,
            ids.to(self._device),
            mask.expand(count, 1, width, start + width),
            positions.expand(count, width),
            torch.tensor(ends, device=self._device),
        )
        self.rows.extend(chunk)
        if not start:
            self._keep_prefixes(chunk, first)
        where = torch.tensor([ends.index(length - 1) for length in lengths], device=self._device)
        self._advance(chunk, logits[torch.arange(count, device=self._device), where])

    def _keep_prefixes(self, chunk: list[Row], first: int) -> None:
        for offset, row in enumerate(chunk):
            key = row.prefix_key
            if key is not None and key not in self._prefixes:
                self._prefixes[key] = self._cache.read(first + offset, row.shared)
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)

    def _forward(self, rows: Sequence[Row], ids: Any, mask: Any, positions: Any, keep: Any) -> torch.Tensor:
        """Logits (B, kept positions, vocabulary) of ids (B, T) with mask (B, 1, T, length)."""
        if self.adapters:
            self.mix.names = [BASE_NAME if row.version == BASE_VERSION else row.version for row in rows]
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: torch.Tensor = output.logits
        return logits

    def _advance(self, rows: Sequence[Row], logits: torch.Tensor) -> None:
        for row, token in zip(rows, next_tokens(logits, [r.sampler for r in rows]), strict=True):
            row.generated.append(token)
            if row.cancelled:
                continue
            if token in self._eos:
                self._finish(row, "stop")
                continue
            text = row.scanner.push(row.detokenizer.push(token))
            if row.scanner.stopped:
                row.emit(Delta(text))
                self._finish(row, "stop")
            elif len(row.generated) >= row.max_tokens:
                row.emit(Delta(text))
                self._finish(row, "length")
            elif text:
                row.emit(Delta(text))

    def _finish(self, row: Row, reason: FinishReason) -> None:
        rest = "" if row.scanner.stopped else row.scanner.push(row.detokenizer.flush()) + row.scanner.flush()
        row.emit(
            Delta(
                rest,
                finished=True,
                finish_reason="stop" if row.scanner.stopped else reason,
                tokens_in=len(row.ids),
                tokens_out=len(row.generated),
            )
        )
        row.cancelled = True

    def _leave(self) -> None:
        """Close the gaps left by rows that are done: the last row moves into each."""
        place = 0
        while place < len(self.rows):
            if not self.rows[place].cancelled:
                place += 1
                continue
            last = self.rows.pop()
            if place < len(self.rows):
                self.rows[place] = last
                self._cache.move(len(self.rows), place, last.length)


def _chunks(rows: list[Row], start: int) -> list[list[Row]]:
    """Cut rows, shortest first, into groups whose padding stays within PREFILL_WASTE."""
    chunks: list[list[Row]] = []
    real = 0
    for row in rows:
        length = len(row.ids) - start
        if chunks and length * (len(chunks[-1]) + 1) <= PREFILL_WASTE * (real + length):
            chunks[-1].append(row)
            real += length
        else:
            chunks.append([row])
            real = length
    return chunks
