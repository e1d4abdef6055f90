"""`conflict`: people with similar prompts gave another answer. Stops honest mistakes, and poison that gives an answer
of one question to another, from standing among the right ones.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.judgement import Judgement

REASON = "conflict"


def apply(desk: Desk, judged: Judgement) -> None:
    """Leave out what is outvoted."""
    votes, count = judged.votes, judged.tally
    lost = np.flatnonzero(judged.outvoted & (desk.code[votes.place] == 0))
    detail = {
        int(
            votes.place[v]
        ): f"people with similar prompts gave another answer ({count.rival[v]:.2f} to {count.own[v]:.2f})"
        for v in (lost if desk.keep_details else lost[:0])
    }
    desk.leave_out(REASON, votes.place[lost], detail)
