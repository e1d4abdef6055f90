"""Who may write into a run's folder: the newest claim's trainer, by its fencing token.

A worker that was thought dead may still train. Its claim's token is older than the one in the folder then, so it stops
before it replaces a checkpoint or publishes. What the ledger's own token guards is checked again there.
"""

from __future__ import annotations

import os
from pathlib import Path

from configs.errors import StaleTokenError

FILE = "claim"


def take(folder: Path, token: int) -> None:
    """Put up the token of a new claim; 0 is no claim, and puts up none.

    Raises:
        StaleTokenError: a newer claim has the folder.
    """
    check(folder, token)
    if token:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE}.{os.getpid()}.tmp"
        temporary.write_text(str(token), encoding="ascii")
        os.replace(temporary, folder / FILE)


def check(folder: Path, token: int) -> None:
    """Raise if a newer claim has the folder; cheap enough for every step.

    Raises:
        StaleTokenError: so it is.
    """
    try:
        newest = int((folder / FILE).read_text(encoding="ascii"))
    except FileNotFoundError:
        return
    if newest > token:
        raise StaleTokenError(
            "another worker has taken this training over",
            where=folder,
            expected=f"claim {newest}",
            found=f"claim {token}",
            fix="nothing: the other one goes on from the last checkpoint",
        )
