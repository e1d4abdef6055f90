"""`dropped`: a reviewer said never. Stops a row from coming back with every round."""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "dropped"


def apply(desk: Desk) -> None:
    """Leave out what a person ruled out for good."""
    if desk.facts.dropped:
        ids = desk.rows.ids()
        places = np.array([p for p in desk.here.tolist() if ids[p] in desk.facts.dropped], dtype=np.int64)
        desk.leave_out(REASON, places, "a reviewer ruled it out")
