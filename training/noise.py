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
from pathlib import Path
from typing import Any

KEY_BYTES = 32


def run_key(path: Path) -> bytes:
    """The run's key: read if there is one, else drawn and kept, readable by this user only.

    It lies beside the checkpoint, in the state directory that holds the rows: who can read it needs no attack.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(secrets.token_bytes(KEY_BYTES))
        handle.flush()
        os.fsync(handle.fileno())
    try:
        os.link(temporary, path)  # never replaces a key that somebody else was quicker to draw
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes()


class SecretStream:
    """Uniform and normal numbers that only the key's holder can tell from true ones.

    Args:
        key: of `run_key`.
        run: digest of everything that decides the run. Another run under the same key gets unrelated numbers.
    """

    def __init__(self, key: bytes, run: str) -> None:
        self._key = hmac.new(key, run.encode(), hashlib.sha256).digest()

    def uniforms(self, purpose: str, step: int, count: int) -> Any:
        """(count,) doubles, strictly between 0 and 1, multiples of 2^-54."""
        import numpy as np

        stream = hashlib.shake_256(self._key + f"/{purpose}/{step}".encode()).digest(8 * count)
        return ((np.frombuffer(stream, dtype="<u8") >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

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
