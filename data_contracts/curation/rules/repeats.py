"""`duplicate`: the same answer to nearly the same prompt is there already. Stops repetition from being weight.

A preference stays before a correction that says the same: it says besides which answer was worse.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "duplicate"


def apply(desk: Desk) -> None:
    """Keep the earliest row of each prompt cluster and answer among the rows that teach, preferences first."""
    here = desk.here
    here = here[~desk.target[here]]
    here = here[np.argsort(~desk.columns.paired[here], kind="stable")]
    cluster, answer = desk.cluster[desk.columns.prompt[here]], desk.columns.answer[here]
    keys = cluster.astype(np.int64) * (int(answer.max(initial=0)) + 1) + answer
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    again = np.ones(len(here), dtype=bool)
    again[first] = False
    ids = desk.rows.ids() if desk.keep_details else ()
    detail = {int(here[n]): f"repeats row {ids[here[first[inverse[n]]]]}" for n in np.flatnonzero(again)} if ids else ""
    desk.leave_out(REASON, here[again], detail)
