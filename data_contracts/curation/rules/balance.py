"""`balance`: enough of one cluster of prompts. Stops a flood of variations of one question, each by another account,
from making up most of what is taught, and a popular template from drowning the rest.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.near import first_alike
from data_contracts.curation.rows import text_hash
from data_contracts.curation.rules.cap import rank_within

REASON = "balance"
LARGE = 2_000
"""From so many prompts on, clusters are found by MinHash: at this similarity exact search costs too much."""


def apply(desk: Desk) -> None:
    """Per cluster keep at most max(rows, share of the rows), chosen by salted hash of the id; reviewed ones first."""
    rule, here = desk.policy.balance, desk.here
    most = max(rule.min_rows, int(rule.max_share * len(here)))
    if rule.max_share >= 1 or len(here) <= most:
        return
    prompts, inverse = np.unique(desk.columns.prompt[here], return_inverse=True)
    texts = [desk.conversation(int(desk.columns.prompt_row[p])) for p in prompts]
    cluster = first_alike(texts, rule.similarity, large=LARGE)[inverse]
    crowded = np.bincount(cluster) > most
    here, cluster = here[crowded[cluster]], cluster[crowded[cluster]]
    ids, salt = desk.rows.ids(), desk.policy.holdout_salt
    lot = np.array([text_hash(f"{salt}\0{ids[place]}") for place in here.tolist()], dtype=np.uint64)
    order = np.lexsort((lot, ~desk.columns.reviewed[here]))
    over = order[rank_within(cluster[order]) >= most]
    over = over[~desk.columns.reviewed[here[over]]]
    desk.leave_out(REASON, here[over], f"more than {most} rows of one cluster of prompts")
