"""`unreliable`: most of what this person said was outvoted. Stops a flood of wrong corrections by one account, some of
which always come near enough to a right one to pass by themselves.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.judgement import Judgement

REASON = "unreliable"


def apply(desk: Desk, judged: Judgement) -> None:
    """Leave out the rest of somebody with enough judged corrections, more than half of them outvoted."""
    votes, rule = judged.votes, desk.policy.agreement
    if not rule.enabled:
        return
    # What nobody else said is not judged right: it counts among the corrections that could not be confirmed.
    alone = judged.tally.support <= votes.weight + 1e-6
    said = np.bincount(votes.person, ~votes.reviewed, minlength=len(desk.columns.principals))
    wrong = np.bincount(votes.person, judged.outvoted | (alone & ~votes.reviewed), minlength=len(said))
    bad = (said >= rule.min_judged) & (2 * wrong > said)
    left = bad[votes.person] & ~votes.reviewed & (desk.code[votes.place] == 0)
    desk.leave_out(REASON, votes.place[left], "most of what this person said was contradicted or confirmed by nobody")
