"""The base and its adapters in memory: loaded when first needed, switched afterwards, never loaded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.records import AdapterRef


class LocalModels:
    """The base and its adapters, loaded when first needed."""

    def __init__(self, base_path: Path, base_digest: str, max_rank: int = 64) -> None:
        self._base_path, self._base_digest, self._max_rank = base_path, base_digest, max_rank
        self._model: Any = None
        self._tokenizer: Any = None
        self._loaded: set[str] = set()

    def use(self, ref: AdapterRef | None) -> tuple[Any, Any, str | None]:
        """(model, tokenizer, adapter name) for `generate` and `reference_nll`.

        Raises:
            AdapterRejectedError: files, digest, base, rank or values did not pass the checks.
        """
        from models.loading import attach, load_adapter, load_base

        if self._model is None:
            self._model, self._tokenizer = load_base(self._base_path)
        if ref is None:
            return self._model, self._tokenizer, None
        named = ref.model_copy(update={"version": f"a{ref.digest[:24]}"})
        if named.version not in self._loaded:
            if self._loaded:
                load_adapter(self._model, named, max_rank=self._max_rank, base_digest=self._base_digest)
            else:
                self._model = attach(self._model, named, max_rank=self._max_rank, base_digest=self._base_digest)
            self._loaded.add(named.version)
        return self._model, self._tokenizer, named.version
