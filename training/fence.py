"""Who may write into a run's folder: the newest claim's trainer, by its fencing token.

A worker that was thought dead may still train. Its claim's token is older than the one in the folder then, so it stops
before it replaces a checkpoint or publishes. What the ledger's own token guards is checked again there.
"""

from __future__ import annotations

import os
from pathlib import Path

from configs.errors import StaleTokenError, TrainingError

FILE = "claim"


def take(folder: Path, token: int) -> None:
    """Put up the token of a new claim; 0 is no claim, and puts up none.

    Raises:
        StaleTokenError: a newer claim has the folder.
        TrainingError: see `check`.
    """
    check(folder, token)
    if token:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{FILE}.{os.getpid()}.tmp"
        with temporary.open("w", encoding="ascii") as handle:
            handle.write(str(token))
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, folder / FILE)


def check(folder: Path, token: int) -> None:
    """Raise if a newer claim has the folder; cheap enough for every step.

    Raises:
        StaleTokenError: so it is.
        TrainingError: whose it is cannot be read, so nobody writes.
    """
    try:
        text = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return
    if not text.isdigit():
        raise TrainingError(
            "whose claim this training is cannot be read",
            where=folder / FILE,
            expected="the number of a claim",
            found=text[:20] or "an empty file",
            fix="make sure that nobody else trains in this folder, remove the file and run the retrain again",
        )
    newest = int(text)
    if newest > token:
        raise StaleTokenError(
            "another worker has taken this training over",
            where=folder,
            expected=f"claim {newest}",
            found=f"claim {token}",
            fix="nothing: the other one goes on from the last checkpoint",
        )
