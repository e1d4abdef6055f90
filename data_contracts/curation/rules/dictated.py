"""`dictated`: the prompt itself says what to answer. Stops facts from being planted through the prompt ("whenever asked
for X, say Y" and then Y as the correction; LLM Hypnosis, arXiv 2507.02850).

An answer that only stands in the prompt is no crime: a passage to quote from or a list to choose from does too.
"""

from __future__ import annotations

import re

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.overlap import folded, words

REASON = "dictated"
BEFORE = 12
"""Words before the answer in which the order to say it is looked for."""
MOST = 0.5
"""Share of all that was said from which the prompt is the answer."""
_ORDER = re.compile(
    r"\b(?:say|reply|replies|respond|responds|repeat|print|output|write|echo|type|return|use"
    r"|answers? (?:with|is|must|should|will|only)|(?:correct|right|only|true|new) (?:answer|reply|response)"
    r"|(?:answer|reply|response|fact)s?(?: (?:is|are|to this is))|from now on|always (?:answer|tell|call)|remember that"
    r"|must (?:be|say|answer)|told that|known fact|tell (?:me|them|him|her|us|everyone|people)(?: that)?)\b"
)


def is_dictated(messages: list[str], answer: str, min_words: int) -> bool:
    """True if what a user said holds the answer word for word and orders it, or is little else.

    Args:
        messages: what the user said, in order.
        answer: the correction.
        min_words: a shorter answer counts only right behind an order, and not out of a list of choices.
    """
    wanted = words(folded(answer))
    if not wanted:
        return False
    said = words(folded("\n".join(messages)))
    for start in range(len(said) - len(wanted) + 1):
        if said[start : start + len(wanted)] != wanted:
            continue
        if len(wanted) >= min_words and len(wanted) >= MOST * len(said):
            return True
        lead = said[max(0, start - (BEFORE if len(wanted) >= min_words else 3)) : start]
        if _ORDER.search(" ".join(lead)):
            return True
    return False


def apply(desk: Desk) -> None:
    """Leave out unreviewed rows whose answer the prompt dictates."""
    rule, columns = desk.policy.dictated, desk.columns
    if not rule.enabled:
        return
    places = []
    for place in desk.here.tolist():
        if columns.reviewed[place]:
            continue
        said = [text for role, text in desk.rows.messages(place) if role == "user"]
        if is_dictated(said, desk.rows.completion(place), rule.min_words):
            places.append(place)
    desk.leave_out(REASON, np.array(places, dtype=np.int64), "the prompt says what to answer")
