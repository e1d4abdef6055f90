"""`redaction.<entity>`: the policy (`drop_row`) keeps rows that held such a value from teaching, whoever said it."""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk


def apply(desk: Desk) -> None:
    """Leave out rows whose redacted texts hold an entity the policy drops, unless a person released the row."""
    policy = desk.facts.redaction
    if "drop_row" not in policy.actions.values():
        return
    found: dict[str, list[int]] = {}
    for place in desk.here.tolist():
        if desk.columns.released[place]:
            continue
        texts = [text for _, text in desk.rows.messages(place)]
        reason = policy.drop_reason([*texts, desk.rows.completion(place), desk.rows.rejected(place) or ""])
        if reason is not None:
            found.setdefault(reason, []).append(place)
    for reason, places in sorted(found.items()):
        why = "the redaction policy keeps such rows from teaching"
        desk.leave_out(reason, np.array(places, dtype=np.int64), why)
