"""`untrusted`: an account that is too young, or known to be wrong on gold items. Nobody else has to agree with a thumb,
so only trusted people's teach. Stops accounts that were made for it.
"""

from __future__ import annotations

from data_contracts.curation.desk import Desk
from data_contracts.curation.trust import trusted_people

REASON = "untrusted"


def apply(desk: Desk) -> None:
    """Leave out unreviewed rows of people who are not trusted."""
    here, columns = desk.here, desk.columns
    trusted = trusted_people(desk.facts, desk.policy.trust)[columns.principal[here]]
    desk.leave_out(REASON, here[~trusted & ~columns.reviewed[here]], "from somebody who is not trusted yet")
