"""Whether the ranks of a run are about to train the same adapter: before they do, and before a base is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.errors import TrainingError
from training.ranks import Ranks


def _comparable(one: Any, other: Any) -> bool:
    """False for code of which only one is known as a commit (`training.code`): it may be the same or not."""
    known = [str(code) for code in (one, other) if code != "unknown"]
    return len(known) == 2 and known[0].startswith("v") == known[1].startswith("v")


def check_same_job(job: str, code: str, steps: int, ranks: Ranks) -> None:
    """Refuse ranks that differ from rank 0; returns on each only when all are here.

    Args:
        job: the run's fingerprint, as this rank's machine reads it.
        code: of this machine's installation, see `training.code`; "unknown" agrees with any.
        steps: of the whole run, as this rank counts them.
        ranks: who must agree.

    Raises:
        TrainingError: one differs. On every rank, so that the machine whose flow waits hears of it too.
    """
    mine: Mapping[str, Any] = {"job": job, "code": code, "steps": steps}
    first = ranks.from_main(lambda: mine)
    differs = {name: first[name] != mine[name] for name in mine}
    differs["code"] &= _comparable(first["code"], code)
    flags = [rank == ranks.rank and differs[name] for rank in range(ranks.count) for name in mine]
    found = dict(zip([(rank, name) for rank in range(ranks.count) for name in mine], ranks.sum(flags), strict=True))
    others = [f"rank {rank} has another {name}" for (rank, name), flag in found.items() if flag]
    if others:
        raise TrainingError(
            "the processes of this run would not train the same adapter",
            where=f"rank {ranks.rank} of {ranks.count}",
            expected=f"on every rank what rank 0 has: {dict(first)}",
            found="; ".join(others) + (f"; here: {dict(mine)}" if any(differs.values()) else ""),
            fix="install the same Tidemill on every machine, and see that all of them see the same state directory",
        )
