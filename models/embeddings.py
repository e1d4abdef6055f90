"""Sentence embeddings: mean pooling over a small encoder, normalised to length one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ModelUnavailableError
from models.files import check_model_files
from models.quiet import quiet

if TYPE_CHECKING:
    import numpy as np

MAX_TOKENS = 256


class Embedder:
    """Texts to vectors. Any model `AutoModel` knows will do; the shipped reference has 384 dimensions.

    Args:
        path: a folder of safetensors, see `models.cache.resolve`.
        threads: CPU threads for torch; 0 leaves its choice.

    Raises:
        ModelUnavailableError: files that must not or cannot be loaded.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        from transformers import AutoModel, AutoTokenizer

        from models.loading import pick_device, set_threads

        quiet()
        check_model_files(path)
        set_threads(threads)
        try:
            model = AutoModel.from_pretrained(
                path, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelUnavailableError("the embedder does not load", where=path, found=error) from error
        self._device = pick_device()
        self._model = model.eval().requires_grad_(False).to(self._device)
        self.dimensions: int = int(model.config.hidden_size)

    def encode(self, texts: Sequence[str], batch: int = 32) -> np.ndarray:
        """Embed texts.

        Args:
            texts: any number; each is cut at 256 tokens.
            batch: texts per forward pass; texts of like length go together.

        Returns:
            float32 (n, dimensions), in the order given, each row of length one. An empty text gets a vector too.
        """
        import numpy as np
        import torch

        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), batch):
                picked = order[start : start + batch]
                # An empty text would have no token to pool over.
                encoded = self._tokenizer(
                    [texts[i] or " ." for i in picked],
                    padding=True,
                    truncation=True,
                    max_length=MAX_TOKENS,
                    return_tensors="pt",
                ).to(self._device)
                hidden = self._model(**encoded).last_hidden_state.float()  # (B, T, D)
                mask = encoded["attention_mask"].unsqueeze(-1).float()  # (B, T, 1)
                pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)
                out[picked] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return out
