"""`held_out` and `contaminated`: one prompt, one side. Stops the exam from being taught, and a popular prompt from
being lost to both sides.

A cluster of near-duplicate prompts measures if the first person who asked it is held out, and teaches otherwise; what a
row was in an earlier snapshot decides before that. So a side never changes as rows arrive.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.holdout import is_held_out


def apply(desk: Desk) -> None:
    """Mark held-out people's rows and leave out the rows that stand on the other side of their prompt."""
    columns = desk.columns
    held = np.array([is_held_out(name, desk.policy) for name in columns.principals], dtype=bool)
    desk.held_out = held[columns.principal] & ~columns.review_scope if len(held) else desk.held_out
    cluster = desk.cluster[columns.prompt]
    measures = _measures(desk, cluster)[cluster] if len(cluster) else np.zeros(0, dtype=bool)
    here = desk.here
    wrong = here[desk.held_out[here] & ~measures[here]]
    desk.leave_out("held_out", wrong, "from a held-out person, on a prompt that teaches")
    wrong = here[~desk.held_out[here] & measures[here]]
    desk.leave_out("contaminated", wrong, "a held-out person asked this first")


def _measures(desk: Desk, cluster: np.ndarray) -> np.ndarray:
    """bool by cluster: it belongs to the exam. Of all rows, those left out too: a row may come back."""
    found = np.zeros(int(cluster.max()) + 1, dtype=bool)
    order = np.lexsort((np.arange(len(cluster)), ~desk.columns.asked))
    names, first = np.unique(cluster[order], return_index=True)
    found[names] = desk.held_out[order[first]]
    if desk.facts.sides:
        ids = desk.rows.ids()
        earlier = [(place, desk.facts.sides[id]) for place, id in enumerate(ids) if id in desk.facts.sides]
        for split in ("train", "target"):  # the exam has the last word
            found[cluster[[place for place, side in earlier if side == split]]] = split == "target"
    return found
