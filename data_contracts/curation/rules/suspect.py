"""`suspect`: new in a round that was blocked or rolled back. Stops an attack that passed every other rule from being
tried again and again: what was new when the model got worse neither teaches nor votes until a person lets it through.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "suspect"


def apply(desk: Desk) -> None:
    """Leave out suspects nobody has released."""
    if not desk.facts.suspects:
        return
    ids, released = desk.rows.ids(), desk.columns.released
    places = [p for p in desk.here.tolist() if ids[p] in desk.facts.suspects and not released[p]]
    desk.leave_out(REASON, np.array(places, dtype=np.int64), "new in a round that was blocked or rolled back")
