"""Each distinct text embedded once: vectors by the text's digest in a SQLite file beside the installation's caches.

The file can be deleted at any time; an erasure deletes it. Each vector carries the day it was last asked for, by which
retention goes.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

_BATCH = 512
_DAY_S = 86_400


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
        today = int(time.time() // _DAY_S)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with closing(_open(self._file)) as base:
            known = self._read(base, keys, today)
            missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
            names = list(missing)
            for low in range(0, len(names), _BATCH):
                part = names[low : low + _BATCH]
                if self._encoder is None:
                    self._encoder = self._load()
                vectors = self._encoder.encode([missing[key] for key in part])
                known.update(zip(part, vectors, strict=True))
                with base:
                    rows = [(key, known[key].astype("<f4").tobytes(), today) for key in part]
                    base.executemany("INSERT OR IGNORE INTO vectors (key, vector, day) VALUES (?, ?, ?)", rows)
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), dtype=np.float32)

    def _read(self, base: sqlite3.Connection, keys: Sequence[bytes], today: int) -> dict[bytes, np.ndarray]:
        import numpy as np

        known: dict[bytes, np.ndarray] = {}
        last: dict[bytes, int] = {}
        for low in range(0, len(keys), _BATCH):
            part = keys[low : low + _BATCH]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, vector, day FROM vectors WHERE key IN ({marks})"  # noqa: S608  (question marks only)
            for key, vector, day in base.execute(query, part):
                known[key], last[key] = np.frombuffer(vector, dtype="<f4"), day
        stale = [(today, key) for key, day in last.items() if day < today]
        if stale:
            with base:
                base.executemany("UPDATE vectors SET day = ? WHERE key = ?", stale)
        return known


def _open(file: Path) -> sqlite3.Connection:
    base = sqlite3.connect(file, timeout=60)
    base.execute("PRAGMA secure_delete = ON")
    base.execute(
        "CREATE TABLE IF NOT EXISTS vectors "
        "(key BLOB PRIMARY KEY, vector BLOB, day INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID"
    )
    if all(column[1] != "day" for column in base.execute("PRAGMA table_info(vectors)").fetchall()):
        with suppress(sqlite3.OperationalError):  # tolerated: another process was first
            base.execute("ALTER TABLE vectors ADD COLUMN day INTEGER NOT NULL DEFAULT 0")
    base.execute("CREATE INDEX IF NOT EXISTS vectors_day ON vectors (day)")  # the watch asks every minute
    return base


def forget_unused(file: Path, before: datetime, *, dry_run: bool = False) -> int:
    """Delete the vectors nobody has asked for since the day of `before`, or count them; their bytes are overwritten.

    A file that is no database is deleted and counts as one.
    """
    if not file.is_file():
        return 0
    day = (int(before.timestamp() // _DAY_S),)
    try:
        with closing(_open(file)) as base:
            found = int(base.execute("SELECT COUNT(*) FROM vectors WHERE day < ?", day).fetchone()[0])
            if found and not dry_run:
                with base:
                    base.execute("DELETE FROM vectors WHERE day < ?", day)
                base.execute("VACUUM")
            return found
    except sqlite3.OperationalError:
        return 0  # tolerated: somebody writes; the next pass looks again
    except sqlite3.DatabaseError:
        if not dry_run:
            file.unlink(missing_ok=True)
        return 1
