"""`duplicate`: one vote per person and prompt. Stops one person from being counted as many by saying it again."""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "duplicate"


def apply(desk: Desk) -> None:
    """Keep each person's last word on each prompt; what was reviewed wins over what was not."""
    here, columns = desk.here, desk.columns
    order = here[np.lexsort((here, columns.reviewed[here], columns.prompt[here], columns.principal[here]))]
    same = (columns.principal[order][1:] == columns.principal[order][:-1]) & (
        columns.prompt[order][1:] == columns.prompt[order][:-1]
    )
    desk.leave_out(REASON, order[:-1][same], "the same person said something later")
