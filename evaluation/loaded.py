"""The base and its adapters in memory: loaded when first needed, switched afterwards, never loaded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.limits import MAX_RANK
from data_contracts.records import AdapterRef


class LocalModels:
    """The base and its adapters. Strengths of one adapter are one set of weights, see `models.strength`."""

    def __init__(self, base_path: Path, base_digest: str, max_rank: int = MAX_RANK) -> None:
        self._base_path, self._base_digest, self._max_rank = base_path, base_digest, max_rank
        self._model: Any = None
        self._tokenizer: Any = None
        self._adapters: dict[str, tuple[str, float]] = {}
        """Digest of an adapter -> (name it is loaded under, its alpha)."""
        self._weights: dict[str, str] = {}
        """Key of loaded weights -> their name."""
        self._alpha: dict[str, float] = {}
        """Name -> the alpha that is set now."""

    def use(self, ref: AdapterRef | None) -> tuple[Any, Any, str | None]:
        """(model, tokenizer, adapter name) for `generate` and `reference_nll`.

        Raises:
            AdapterRejectedError: files, digest, base, rank or values did not pass the checks.
        """
        from models.loading import load_base

        if self._model is None:
            self._model, self._tokenizer = load_base(self._base_path)
        if ref is None:
            return self._model, self._tokenizer, None
        if ref.digest not in self._adapters:
            self._adapters[ref.digest] = self._load(ref)
        name, alpha = self._adapters[ref.digest]
        if self._alpha[name] != alpha:
            from models.strength import set_alpha

            set_alpha(self._model, name, alpha)
            self._alpha[name] = alpha
        return self._model, self._tokenizer, name

    def _load(self, ref: AdapterRef) -> tuple[str, float]:
        from models.adapters import check_adapter
        from models.loading import attach, load_adapter
        from models.strength import weights_key

        limits: dict[str, Any] = {"max_rank": self._max_rank, "base_digest": self._base_digest}
        config = check_adapter(ref, **limits)
        key, alpha = weights_key(Path(ref.path), config), float(config["lora_alpha"])
        if key in self._weights:
            return self._weights[key], alpha
        named = ref.model_copy(update={"version": f"a{ref.digest[:24]}"})
        if self._weights:
            load_adapter(self._model, named, **limits)
        else:
            self._model = attach(self._model, named, **limits)
        self._weights[key] = named.version
        self._alpha[named.version] = alpha
        return named.version, alpha
