"""`contaminated`: the prompt is, or comes near, an evaluation prompt. Stops the exam from being learnt by heart, by
accident or by somebody who wants a bad candidate to pass. Not even a released row passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from configs.curation import DecontaminationRule
from data_contracts.curation.desk import Desk
from data_contracts.neardup import NearDuplicateIndex
from data_contracts.overlap import PromptIndex, folded, words

REASON = "contaminated"
BLOCK = 8_192
"""Rows that are asked about at once."""
LARGE = 2_000
"""More protected prompts than this are compared by MinHash, but for those that are asked now; fewer exactly, each."""
MIN_WORDS = 4
"""Words of one message of a longer conversation from which it is a question of its own ("yes" is not)."""


def protected_texts(desk: Desk, exam: np.ndarray) -> list[str]:
    """What no training prompt may come near: all held-out prompts, not only those chosen as items (the choice may
    change as rows arrive), as whole conversations and message by message.
    """
    texts = list(desk.facts.eval_prompts)
    for place in exam.tolist():
        texts.append(desk.conversation(place))
        texts += questions(desk.rows.messages(place))
    return texts


def questions(messages: Sequence[tuple[str, str]]) -> list[str]:
    """What the user asked, message by message, without words that are no question of their own."""
    asked = [text for role, text in messages if role == "user"]
    return [text for text in asked if len(asked) == 1 or len(words(text)) >= MIN_WORDS]


def exam_index(prompts: Iterable[str], rule: DecontaminationRule, *, near: bool = True) -> PromptIndex:
    """Prompts that measure, as near as the policy lets anything come to them."""
    return PromptIndex(prompts, rule.similarity, min_contained=rule.min_contained_words, near=near)


class Protected:
    """The protected prompts, asked about many texts at once.

    Args:
        everything: eval prompts and all held-out prompts.
        core: eval prompts and the chosen target items: what is asked now.
        rule: similarity and least contained words.
    """

    def __init__(self, everything: Sequence[str], core: Sequence[str], rule: DecontaminationRule) -> None:
        self._large: NearDuplicateIndex | None = None
        if len(everything) > LARGE:
            self._large = NearDuplicateIndex(rule.similarity)
            self._large.add_all([str(n) for n in range(len(everything))], [folded(text) for text in everything])
        else:
            core = everything
        self._core = exam_index(core, rule)
        self._rest = exam_index(everything if self._large else (), rule, near=False)

    def overlaps(self, texts: Sequence[str]) -> list[str | None]:
        """How each text comes near a protected prompt, see `PromptIndex.overlap`."""
        found = [self._rest.overlap(text) or self._core.overlap(text) for text in texts]
        if self._large is None:
            return found
        alike = self._large.match_all([folded(text) for text in texts])
        return [kind or ("near" if name is not None else None) for kind, name in zip(found, alike, strict=True)]


def apply(desk: Desk, held: np.ndarray) -> None:
    """Leave out training rows any of whose messages, or all of them in a row, come near a protected prompt.

    Args:
        desk: with its target items chosen.
        held: places of the held-out rows before the choice.
    """
    protected = Protected(
        protected_texts(desk, held), protected_texts(desk, held[desk.target[held]]), desk.policy.decontamination
    )
    here = desk.here
    here = here[~desk.target[here]]
    found: dict[int, str] = {}
    for start in range(0, len(here), BLOCK):
        places = here[start : start + BLOCK].tolist()
        texts: list[str] = []
        owner: list[int] = []
        known: dict[int, int] = {}
        twin: dict[int, int] = {}
        for place in places:
            said = [text for _, text in desk.rows.messages(place)]
            # A system message is not part of the prompt's code, so only single messages can share the answer.
            if len(said) == 1:
                first = known.setdefault(int(desk.columns.prompt[place]), place)
                if first != place:
                    twin[place] = first
                    continue
            else:
                said.append(desk.conversation(place))
            texts += said
            owner += [place] * len(said)
        kinds: dict[int, str] = {}
        for place, kind in zip(owner, protected.overlaps(texts), strict=True):
            if kind:
                kinds.setdefault(place, kind)
        for place in places:
            kind = kinds.get(twin.get(place, place))
            if kind:
                found[place] = f"an evaluation prompt ({kind})"
    desk.leave_out(REASON, np.array(sorted(found), dtype=np.int64), found)
