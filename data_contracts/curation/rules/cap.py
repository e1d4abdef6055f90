"""`cap`: enough from this person. Stops one busy account, honest or not, from setting the tone of the model."""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk

REASON = "cap"


def apply(desk: Desk) -> None:
    """Keep each person's earliest rows up to max(rows, share of the rows before capping); reviewed ones are exempt."""
    here, columns, policy = desk.here, desk.columns, desk.policy
    cap = max(policy.max_rows_per_principal, int(policy.max_share_per_principal * len(here)))
    counted = here[~columns.reviewed[here]]
    desk.leave_out(
        REASON, counted[rank_within(columns.principal[counted]) >= cap], f"more than {cap} rows of one person"
    )


def rank_within(groups: np.ndarray) -> np.ndarray:
    """int64: how many earlier members of its group each place has."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, dtype=np.int64)
    sizes = np.diff(np.r_[starts, len(ordered)])
    rank = np.empty(len(groups), dtype=np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return rank
