"""What an answer shows by itself: the flags stored with a request (SCIENCE: signals without a judge model).

`truncated`: the answer was cut at its token limit. `refusal`: it begins like one. `error`: there is no answer.
`cancelled`: the caller went away. There is no safety filter in this gateway, so nothing raises `safety_block`.
"""

from __future__ import annotations

import re

from serving.engines.base import FinishReason

# How chat models begin when they decline; anchored at the start, so an answer that merely quotes one does not count.
_REFUSAL = re.compile(
    r"\s*(?:i'?m (?:very |really |so )?sorry,? but i |i apologi[sz]e,? but i |sorry,? (?:but )?i (?:can|am|'m)|"
    r"i (?:can ?not|can't|am unable to|am not able to|won't|will not) (?:help|assist|answer|provide|do|comply|fulfil)|"
    r"i'?m (?:unable|not able) to |as an ai(?: language)? (?:model|assistant)?,? ?i (?:can|am|do))",
    re.IGNORECASE,
)


def answer_flags(answer: str, finish_reason: FinishReason | None) -> tuple[str, ...]:
    """Flags of a complete answer."""
    flags = []
    if finish_reason == "length":
        flags.append("truncated")
    if _REFUSAL.match(answer.replace("\u2019", "'")):
        flags.append("refusal")
    return tuple(flags)
