"""`burst`: one of many accounts that came together. Stops a botnet: many young accounts, or accounts of one week, that
give one answer, far more of them than among everybody else, and nobody else of the neighbourhood gives it.
"""

from __future__ import annotations

from data_contracts.curation.desk import Desk
from data_contracts.curation.judgement import Judgement

REASON = "burst"


def apply(desk: Desk, judged: Judgement) -> None:
    """Leave out the cluster's rows; the accounts' other rows stay but are nobody's corroboration."""
    places = judged.votes.place[judged.burst]
    places = places[desk.code[places] == 0]
    desk.leave_out(REASON, places, "one of many accounts that came together and gave this answer")
