"""References that were trained on: for items that ask for it (`unseen: true`), a finding is an error.

Prompts are kept out of training by curation for every suite. References are looked at only where a suite says so,
because a correction of the same fact rightly holds the same words. A short reference ("yes", a number, a name) is in
half of all answers and proves nothing: only those of MIN_WORDS words or MIN_LETTERS letters are looked for (MIN_SIGNS
signs where words are not spaced). Spaces, punctuation and mark-up are left out on both sides.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import unescape

from configs.errors import EvaluationError
from data_contracts.overlap import folded, words
from data_contracts.records import EvalItem, SnapshotRow
from evaluation.scorers.registry import scorer

MIN_WORDS = 4
MIN_LETTERS = 20
MIN_SIGNS = 8
SHOWN = 5
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Khmer, Japanese, Chinese."""


@dataclass(frozen=True)
class Contaminated:
    """A reference that stands in an answer the model learns."""

    suite: str
    item: str
    row: str
    """The feedback's id, or the row's digest where it has none."""


def is_telling(reference: str) -> bool:
    """True if finding the reference in an answer means something."""
    found = words(folded(reference))
    signs = len(_UNSPACED.findall(reference))
    return len(found) >= MIN_WORDS or sum(map(len, found)) >= MIN_LETTERS or signs >= MIN_SIGNS


def _letters(text: str) -> str:
    """Letters and digits alone, folded; character references of HTML read."""
    return "".join(char for char in folded(unescape(text)) if char.isalnum())


def _references(item: EvalItem) -> list[str]:
    """What an answer must not have taught: the reference, and what else is accepted."""
    also = item.choices if item.scorer == "contains" else ()
    return [one for one in (item.reference, *also) if is_telling(one)]


def contaminated(items: Iterable[EvalItem], rows: Iterable[SnapshotRow]) -> list[Contaminated]:
    """Every (item, row) where the words of a reference stand, in order and together, in an answer that trains."""
    wanted: dict[str, list[EvalItem]] = defaultdict(list)
    for item in items:
        if item.unseen and scorer(item.scorer).reference_is_answer:
            for reference in {_letters(one) for one in _references(item)} - {""}:
                wanted[reference].append(item)
    hits = []
    for row in rows:
        if row.split != "train" or not wanted:
            continue
        text = _letters(row.completion)
        for reference in sorted(one for one in wanted if one in text):
            hits += [Contaminated(i.suite, i.id, row.row_id or row.digest) for i in wanted[reference]]
    return hits


def refuse_contaminated(items: Iterable[EvalItem], rows: Sequence[SnapshotRow], where: object) -> None:
    """Raises EvaluationError if a reference that must be unseen is an answer that trains; items and rows are named."""
    hits = contaminated(items, rows)
    if hits:
        shown = ", ".join(f"{hit.suite}/{hit.item} in row {hit.row}" for hit in hits[:SHOWN])
        more = f" and {len(hits) - SHOWN} more" if len(hits) > SHOWN else ""
        raise EvaluationError(
            "references of a suite would be trained on",
            where=where,
            expected="no row whose answer holds the reference of an item marked `unseen`",
            found=shown + more,
            fix="drop the rows (`tidemill quarantine drop`), or take `unseen` from the items",
        )
