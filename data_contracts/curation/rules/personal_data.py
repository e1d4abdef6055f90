"""`personal_data`: the answer holds personal data or its placeholder. Stops the model from learning to say either.

A preference's rejected answer counts like the preferred one: what is made unlikely was trained on too.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.redaction import contains_placeholder

REASON = "personal_data"


def apply(desk: Desk) -> None:
    """Leave out answers with a placeholder, unless a person released the row."""
    places = [
        place
        for place in desk.here.tolist()
        if not desk.columns.released[place]
        and (contains_placeholder(desk.rows.completion(place)) or contains_placeholder(desk.rows.rejected(place) or ""))
    ]
    desk.leave_out(REASON, np.array(places, dtype=np.int64), "the answer holds personal data")
