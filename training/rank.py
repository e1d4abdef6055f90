"""One of several processes that train together: `python -m training.rank --job JOB.json`, under `accelerate launch`.

The work is `training.trainer.train`. Rank 0 alone prints progress and the result; any rank may print an error, and the
first is the one that counts: the others' only tell that somebody is gone.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from models.jobs import Emit, Event, serve_job
from training.trainer import Job, train


def train_together(data: dict[str, Any], emit: Emit, stop: threading.Event) -> Event:
    """`training.trainer.train` as one rank.

    Raises:
        WorkerLostError: another process ended or did not answer; otherwise as there.
    """
    from training.distributed import joined

    with joined(Job.of(data).config) as ranks:
        return train(data, emit, stop, ranks)


if __name__ == "__main__":
    place = {"rank": int(os.environ["RANK"]), "local_rank": int(os.environ["LOCAL_RANK"])}
    raise SystemExit(serve_job(train_together, **place))
