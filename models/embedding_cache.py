"""Each distinct text embedded once: vectors by the text's digest in a SQLite file beside the installation's caches.

The file can be deleted at any time; an erasure deletes it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

_BATCH = 512


class Encoder(Protocol):
    """What `models.embeddings.Embedder` does."""

    def encode(self, texts: Sequence[str], batch: int = 32) -> np.ndarray:
        """Embed texts: float32 (n, d), rows of length 1."""
        ...


class CachedEmbedder:
    """A callable that embeds texts, each one once.

    Args:
        file: the SQLite file; its folder is made.
        model: digest of the embedding model, so that another model's vectors are never taken.
        load: makes the encoder; called at the first text that is not known.
    """

    def __init__(self, file: Path, model: str, load: Callable[[], Encoder]) -> None:
        self._file, self._model, self._load = file, model, load
        self._encoder: Encoder | None = None

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self._model}\0{text}".encode("utf-8", "surrogatepass"), digest_size=20).digest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, d), in the order given."""
        import numpy as np

        keys = [self._key(text) for text in texts]
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._file, timeout=60)) as base:
            base.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
            known = self._read(base, keys)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            names = list(missing)
            for low in range(0, len(names), _BATCH):
                part = names[low : low + _BATCH]
                if self._encoder is None:
                    self._encoder = self._load()
                vectors = self._encoder.encode([missing[key] for key in part])
                known.update(zip(part, vectors, strict=True))
                with base:
                    rows = [(key, known[key].astype("<f4").tobytes()) for key in part]
                    base.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), dtype=np.float32)

    def _read(self, base: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, np.ndarray]:
        import numpy as np

        known: dict[bytes, np.ndarray] = {}
        for low in range(0, len(keys), _BATCH):
            part = keys[low : low + _BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector FROM vectors WHERE key IN ({marks})"  # noqa: S608  (question marks only)
            known.update({key: np.frombuffer(vector, dtype="<f4") for key, vector in base.execute(query, part)})
        return known
