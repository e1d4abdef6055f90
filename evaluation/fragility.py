"""Does the verdict hang on the wording? Items asked again with a typo, in other case, with other spaces, paraphrased.

The variants are items of the suite `fragility`, made from other suites and deterministic by seed; paraphrases are those
the suite's author gives (`variants` of an item). After the models have answered, `fold` makes one item an original: 1
if every variant got the verdict the original got, 0 if any flipped, right to wrong or wrong to right. So the suite's
items are as independent as the originals, and its share of zeros is the fragility. A model that is always wrong is not
fragile: read it beside the suites themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

from configs.errors import EvaluationError
from data_contracts.digests import digest
from data_contracts.records import EvalItem, EvalReport, ItemScore, Message, SuiteScores
from evaluation.gate import FRAGILITY

PARAPHRASE = "paraphrase"
_WORD = re.compile(r"[^\W\d_]+")
_QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|`[^`]*`|(?<!\w)'[^']*'(?!\w)|\{.*?\}|\[.*?\]", re.DOTALL)
LEAST_LETTERS = 4
"""Shorter words get no typo: too often another word comes of it."""


def _free_words(item: EvalItem, text: str) -> list[re.Match[str]]:
    """Words whose spelling the required answer cannot depend on: not quoted, not in the reference, no acronym."""
    kept = {word.casefold() for part in (item.reference, *item.choices) for word in _WORD.findall(part)}
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    return [
        match
        for match in _WORD.finditer(text)
        if match[0].casefold() not in kept
        and not (len(match[0]) > 1 and match[0].isupper())
        and not any(start <= match.start() < end for start, end in quoted)
    ]


def _replaced(text: str, chosen: Sequence[re.Match[str]], change: Callable[[str], str]) -> str:
    for match in sorted(chosen, key=lambda m: m.start(), reverse=True):
        text = text[: match.start()] + change(match[0]) + text[match.end() :]
    return text


def typo(item: EvalItem, text: str, random: Random) -> str:
    """Two neighbouring inner letters swapped, in one of six words that may change (at least one, at most three)."""

    def swapped(word: str) -> str:
        places = [i for i in range(1, len(word) - 2) if word[i] != word[i + 1]]
        if not places:
            return word
        at = random.choice(places)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    free = [match for match in _free_words(item, text) if len(match[0]) >= LEAST_LETTERS]
    chosen = random.sample(free, min(len(free), max(1, min(3, len(free) // 6))))
    return _replaced(text, chosen, swapped)


def case(item: EvalItem, text: str, _: Random) -> str:
    """Everything that may change in lower case, as people type."""
    return _replaced(text, _free_words(item, text), str.lower)


def space(_: EvalItem, text: str, random: Random) -> str:
    """One in three single spaces doubled (at least one), and a line break at the end; quoted text keeps its own."""
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    at = [m for m in re.finditer(r"(?<=\S) (?=\S)", text) if not any(a <= m.start() < b for a, b in quoted)]
    return _replaced(text, random.sample(at, min(len(at), max(1, len(at) // 3))), lambda _: "  ") + "\n"


CHANGES: dict[str, Callable[[EvalItem, str, Random], str]] = {"typo": typo, "case": case, "space": space}


def variants_of(item: EvalItem, kinds: Sequence[str], seed: int) -> dict[str, str]:
    """`{kind: the last user message in another form}`; a kind that changes nothing is left out.

    Args:
        item: the original.
        kinds: `typo`, `case`, `space`, `paraphrase`.
        seed: with the item's id it decides where what is changed.
    """
    text = item.messages[-1].content
    found = {kind: CHANGES[kind](item, text, Random(f"{seed}/{item.id}/{kind}")) for kind in kinds if kind in CHANGES}
    if PARAPHRASE in kinds:
        found |= {f"{PARAPHRASE}-{i}": said for i, said in enumerate(item.variants, start=1)}
    return {kind: said for kind, said in found.items() if said != text}


def fragility_items(
    suites: Mapping[str, Sequence[EvalItem]], kinds: Sequence[str], *, limit: int, seed: int = 0
) -> list[EvalItem]:
    """The variants of up to `limit` items of each suite, drawn by the digest of their ids; ids `SUITE/ITEM#KIND`."""
    made = []
    for name, items in suites.items():
        for item in sorted(items, key=lambda i: digest([seed, name, i.id]))[:limit]:
            for kind, said in variants_of(item, kinds, seed).items():
                messages = (*item.messages[:-1], Message(role="user", content=said))
                changed = {"id": f"{name}/{item.id}#{kind}", "suite": FRAGILITY, "messages": messages, "variants": ()}
                made.append(item.model_copy(update=changed))
    return made


def _fold_model(scores: SuiteScores, originals: Mapping[str, ItemScore]) -> SuiteScores:
    grouped: dict[str, list[ItemScore]] = {}
    for item in scores.items:
        grouped.setdefault(item.item_id.rpartition("#")[0], []).append(item)
    folded = []
    for name, variants in grouped.items():
        if name not in originals:
            raise EvaluationError(
                "a variant was scored without its original", where=f"{FRAGILITY}/{name}", expected="both in one report"
            )
        flipped = [v for v in variants if v.score != originals[name].score]
        answer = f"{flipped[0].item_id.rpartition('#')[2]}: {flipped[0].answer}" if flipped else originals[name].answer
        folded.append(ItemScore(item_id=name, score=float(not flipped), answer=answer))
    return scores.model_copy(update={"items": tuple(folded)})


def fold(report: EvalReport) -> EvalReport:
    """The report with suite `fragility` about originals instead of variants; unchanged without that suite.

    Raises:
        EvaluationError: a variant whose original the report does not have.
    """
    if FRAGILITY not in report.scores:
        return report
    folded = {}
    for model, scores in report.scores[FRAGILITY].items():
        originals = {
            f"{suite}/{item.item_id}": item
            for suite, by_model in report.scores.items()
            if suite != FRAGILITY and model in by_model
            for item in by_model[model].items
        }
        folded[model] = _fold_model(scores, originals)
    return report.model_copy(
        update={
            "scores": {**report.scores, FRAGILITY: folded},
            "slices": {
                **report.slices,
                FRAGILITY: {k.rpartition("#")[0]: v for k, v in report.slices.get(FRAGILITY, {}).items()},
            },
        }
    )
