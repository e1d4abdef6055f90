"""Secret randomness of a private run: who is drawn for a step, and the noise on it, from one key.

The guarantee is worth no more than the secrecy of the noise: whoever knows it subtracts it. So it comes from a key that
was drawn for this run alone and is never the training seed, through SHAKE-256 (FIPS 202), and not from torch's
generator, which keeps 32 bits of its seed on a CPU: few enough to try them all.

It is a function of key and step and not of how often the step was tried: a run that goes on after a kill repeats its
steps to the bit. Fresh noise would leave two noisy copies of one gradient (a checkpoint in a backup, and the adapter),
which is more than was accounted for.

What this does not defend against: reading off the low bits of a floating-point sum (Mironov, CCS 2012). The noise is
made and added in double precision and rounded to single with the sum, no more.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.errors import TrainingError

KEY_BYTES = 32


def run_key(path: Path, link: Callable[[Path, Path], None] = os.link) -> bytes:
    """The run's key: read if there is one, else drawn and kept, readable by this user only.

    It lies beside the checkpoint, in the state directory that holds the rows: who can read it needs no attack.

    Args:
        path: of the key's file.
        link: gives a file a second name, or raises OSError: not every file system can.

    Raises:
        TrainingError: the file holds no whole key.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _draw(path, link)
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a crash before the other name was taken away
        left.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise TrainingError(
            "the key of this run's noise is not whole",
            where=path,
            expected=f"{KEY_BYTES} bytes",
            found=f"{len(key)} bytes",
            fix="remove the file and run the retrain again: it draws another key, which is charged for",
        )
    return key


def _draw(path: Path, link: Callable[[Path, Path], None]) -> None:
    """Keep a new key, unless somebody else was quicker: theirs is never replaced."""
    key = secrets.token_bytes(KEY_BYTES)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    _write_new(temporary, key)
    try:
        link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        pass  # who was quicker has removed our file too
    except OSError:  # no hard links here; a crash during this write is seen by the key's length
        with suppress(FileExistsError):
            _write_new(path, key)
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, key: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(key)
        handle.flush()
        os.fsync(handle.fileno())


def between_0_and_1(words: Any) -> Any:
    """Doubles strictly between 0 and 1 from uint64 words, the odd multiples of 2^-53.

    Of 52 bits, half a step above each multiple of 2^-52: with 53 bits the largest would round to 1.
    """
    import numpy as np

    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class SecretStream:
    """Uniform and normal numbers that only the key's holder can tell from true ones.

    Args:
        key: of `run_key`.
        run: digest of everything that decides the run. Another run under the same key gets unrelated numbers.
    """

    def __init__(self, key: bytes, run: str) -> None:
        self._key = hmac.new(key, run.encode(), hashlib.sha256).digest()

    def uniforms(self, purpose: str, step: int, count: int) -> Any:
        """(count,) doubles, see `between_0_and_1`."""
        import numpy as np

        stream = hashlib.shake_256(self._key + f"/{purpose}/{step}".encode()).digest(8 * count)
        return between_0_and_1(np.frombuffer(stream, dtype="<u8"))

    def normals(self, step: int, part: int, count: int) -> Any:
        """(count,) independent standard normal doubles for one part of a step, by Box and Muller's transform (1958)."""
        import numpy as np

        pairs = (count + 1) // 2
        uniform = self.uniforms(f"noise {part}", step, 2 * pairs)
        radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
        angle = 2.0 * np.pi * uniform[pairs:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def drawn(self, step: int, people: int, rate: float) -> list[int]:
        """Who is in a step: each of `people` with chance `rate`, independently (Poisson sampling)."""
        return [int(one) for one in (self.uniforms("people", step, people) < rate).nonzero()[0]]
