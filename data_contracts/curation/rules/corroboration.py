"""`uncorroborated`: too few independent trusted people gave this correction yet. Stops whoever has few accounts, new
accounts, or accounts that act as one, from teaching the model anything by themselves.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.judgement import Judgement

REASON = "uncorroborated"


def apply(desk: Desk, judged: Judgement, support: np.ndarray) -> None:
    """Leave out rows with less support than `corroborating_principals` people, a reviewer being enough alone.

    Args:
        desk: the rows.
        judged: the votes.
        support: float64 (votes,) trusted people for each.
    """
    needed = desk.policy.corroborating_principals
    if needed <= 1:
        return
    votes = judged.votes
    short = np.flatnonzero(~votes.reviewed & (support < needed - 1e-6) & (desk.code[votes.place] == 0))
    detail = {
        int(votes.place[v]): f"given by {support[v]:.2g} of the {needed} independent trusted people needed"
        for v in (short if desk.keep_details else short[:0])
    }
    desk.leave_out(REASON, votes.place[short], detail)
