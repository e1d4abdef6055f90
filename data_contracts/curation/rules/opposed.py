"""`conflict` among thumbs: up and down on one answer cancel each other, and no thumb stands against a correction. Stops
a quarrel, or a few people with an aim, from being taken for a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.curation.trust import REVIEWER_WEIGHT
from data_contracts.overlap import answer_key, prompt_key

REASON = "conflict"


def apply(desk: Desk, labels: np.ndarray, taught: Mapping[str, Set[str]]) -> None:
    """Per answer to a cluster of prompts leave out the minority, or everybody where the sides are even.

    Args:
        desk: thumbs, one vote a person.
        labels: int (rows,), +1 or -1.
        taught: prompt key -> keys of the answers that corrections teach to it.
    """
    _against_what_is_taught(desk, labels, taught)
    here, columns = desk.here, desk.columns
    cluster, answer = desk.cluster[columns.prompt[here]], columns.answer[here]
    _, group = np.unique(np.stack([cluster, answer], axis=1), axis=0, return_inverse=True)
    weight = np.where(columns.reviewed[here], REVIEWER_WEIGHT, 1.0)
    net = np.bincount(group.reshape(-1), weight * labels[here], minlength=1)[group.reshape(-1)]
    desk.leave_out(REASON, here[np.sign(net) != labels[here]], "as many or more people said the opposite")


def _against_what_is_taught(desk: Desk, labels: np.ndarray, taught: Mapping[str, Set[str]]) -> None:
    places = []
    for place in desk.here.tolist():
        answers = taught.get(prompt_key(desk.conversation(place)))
        if answers and (answer_key(desk.rows.completion(place)) in answers) != (labels[place] > 0):
            places.append(place)
    desk.leave_out(REASON, np.array(places, dtype=np.int64), "a correction says otherwise")


def taught_answers(pairs: Sequence[tuple[str, str]]) -> dict[str, set[str]]:
    """What `apply` takes, of (conversation, answer) pairs."""
    found: dict[str, set[str]] = {}
    for conversation, answer in pairs:
        found.setdefault(prompt_key(conversation), set()).add(answer_key(answer))
    return found
