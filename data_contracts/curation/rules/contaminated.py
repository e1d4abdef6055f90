"""`contaminated`: the prompt is, or comes near, an evaluation prompt. Stops the exam from being learnt by heart, by
accident or by somebody who wants a bad candidate to pass. Not even a released row passes.
"""

from __future__ import annotations

import numpy as np

from data_contracts.curation.desk import Desk
from data_contracts.overlap import PromptIndex, words

REASON = "contaminated"
MIN_WORDS = 4
"""Words of one message of a longer conversation from which it is a question of its own ("yes" is not)."""


def protected_texts(desk: Desk, exam: np.ndarray) -> list[str]:
    """What no training prompt may come near: all held-out prompts, not only those chosen as items (the choice may
    change as rows arrive), as whole conversations and message by message.
    """
    texts = list(desk.facts.eval_prompts)
    for place in exam.tolist():
        asked = [text for role, text in desk.rows.messages(place) if role == "user"]
        texts.append(desk.conversation(place))
        texts += [text for text in asked if len(asked) == 1 or len(words(text)) >= MIN_WORDS]
    return texts


def apply(desk: Desk, protected: PromptIndex) -> None:
    """Leave out training rows any of whose messages, or all of them in a row, come near a protected prompt."""
    known: dict[int, str | None] = {}
    found: dict[int, str] = {}
    for place in desk.here.tolist():
        if desk.target[place]:
            continue
        prompt = int(desk.columns.prompt[place])
        several = len(desk.rows.messages(place)) > 1
        # A system message is not part of the prompt's code, so only single messages can share the answer.
        if several or prompt not in known:
            known[prompt] = _overlap(desk, place, protected)
        kind = known[prompt]
        if kind:
            found[place] = f"an evaluation prompt ({kind})"
    desk.leave_out(REASON, np.array(sorted(found), dtype=np.int64), found)


def _overlap(desk: Desk, place: int, protected: PromptIndex) -> str | None:
    texts = [text for _, text in desk.rows.messages(place)]
    if len(texts) > 1:
        texts.append(desk.conversation(place))
    return next(filter(None, map(protected.overlap, texts)), None)
