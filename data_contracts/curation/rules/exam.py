"""`duplicate` and `cap` among held-out rows: the target suite. One item per prompt, so that a popular one does not
decide the exam; of too many those with the smallest salted hash, so that the choice stays as rows arrive.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.digests import digest
from data_contracts.overlap import prompt_key


def apply(desk: Desk) -> None:
    """Choose the target items among the held-out rows."""
    here = desk.here
    exam = here[desk.held_out[here]]
    cluster = desk.cluster[desk.columns.prompt[exam]]
    _, first = np.unique(cluster, return_index=True)
    again = np.ones(len(exam), dtype=bool)
    again[first] = False
    desk.leave_out("duplicate", exam[again], "another held-out row asks the same")
    salt, most = desk.policy.holdout_salt, desk.policy.max_target_items
    distinct = sorted(exam[~again].tolist(), key=lambda place: digest([salt, prompt_key(desk.conversation(place))]))
    desk.leave_out("cap", np.array(sorted(distinct[most:]), dtype=np.int64), f"more than {most} held-out items")
    desk.target[distinct[:most]] = True
