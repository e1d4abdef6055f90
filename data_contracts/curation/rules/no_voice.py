"""`uncorroborated`: not from the one who asked. Stops invented names: one request, however many names, is one voice."""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "uncorroborated"


def apply(desk: Desk) -> None:
    """Leave out unreviewed rows of somebody who did not ask, and all but the first on one interaction."""
    here, columns = desk.here, desk.columns
    here = here[~columns.reviewed[here]]
    stranger = here[~columns.asked[here]]
    desk.leave_out(REASON, stranger, "not from the person who asked")
    here = here[columns.asked[here]]
    _, first = np.unique(columns.interaction[here], return_index=True)
    later = np.ones(len(here), dtype=bool)
    later[first] = False
    desk.leave_out(REASON, here[later], "somebody else's correction of this answer came first")
