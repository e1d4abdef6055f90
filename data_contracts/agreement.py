"""Which corrections agree: corroboration, answers outvoted by similar prompts, and rivals for one prompt.

The same words for the same thing cannot be asked for (people ask for one thing in many ways), but the correction of one
thing is often the same sentence. So support is counted by normalised answer, and whether an answer belongs to a prompt
is judged by its neighbours: prompts that look alike should have been corrected alike.

Measured on Banking77 with 12 intents and 8 to 25 corrections each, one person a row: of wrong corrections (another
intent's answer, or an invented one that two or three people agree on) 90-100 % are outvoted, of right ones 0.5-3 %.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.overlap import NearIndex, prompt_key

NEIGHBOURS = 5
"""An answer's vote is the mean similarity of its most similar prompts, one per person; fewer people count as zeros."""
TRUSTED_WEIGHT = 2
"""A reviewer's prompt counts as those of so many people."""
RIVAL_RATIO = 1.8
"""A rival's vote must be this many times the row's own."""
RIVAL_FLOOR = 0.08
"""A rival whose prompts are less similar than this says nothing."""
SAME = 0.98
"""Prompts at least this similar are the same prompt; a difference about one prompt is for `rivals` to settle, so a
rival gets nothing from it. The same answer to the same prompt by somebody else is full support."""
_BLOCK = 256


@dataclass(frozen=True)
class Vote:
    """One row as curation sees it."""

    row_id: str
    principal: str
    prompt: str
    """All that was said in the conversation before the answer, without the system message."""
    answer: str
    """`overlap.answer_key` of the correction."""
    trusted: bool
    """Scope review, or released by a person."""


def uncorroborated(votes: Sequence[Vote], needed: int) -> dict[str, str]:
    """Row id -> why, for untrusted rows whose answer fewer than `needed` people gave and no trusted row confirms."""
    people: dict[str, set[str]] = defaultdict(set)
    confirmed: set[str] = set()
    for vote in votes:
        people[vote.answer].add(vote.principal)
        if vote.trusted:
            confirmed.add(vote.answer)
    return {
        vote.row_id: f"given by {len(people[vote.answer])} of the {needed} independent people needed"
        for vote in votes
        if not vote.trusted and vote.answer not in confirmed and len(people[vote.answer]) < needed
    }


def _similarities(prompts: Sequence[str]) -> Any:
    """Sparse unit rows: half words, half character 3- to 5-grams, TF-IDF; a product of two is their cosine."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [prompt_key(prompt) or "-" for prompt in prompts]
    by_word = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\S+").fit_transform(texts)  # noqa: S106
    by_chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(texts)
    return (hstack([by_word, by_chars]) * 0.5**0.5).tocsr()


def outvoted(votes: Sequence[Vote]) -> dict[str, str]:
    """Row id -> why, for untrusted rows whose prompt is clearly more like the prompts another answer was given to.

    Args:
        votes: corroborated rows, in an order that does not depend on how they arrived.
    """
    import numpy as np

    answers = sorted({vote.answer for vote in votes})
    if len(answers) < 2:
        return {}
    vectors = _similarities([vote.prompt for vote in votes])
    order = sorted(range(len(votes)), key=lambda i: (votes[i].answer, votes[i].principal))
    columns = [(votes[i].answer, votes[i].principal) for i in order]
    starts = [k for k, column in enumerate(columns) if k == 0 or column != columns[k - 1]]
    groups = [columns[k] for k in starts]
    spans = {
        answer: (
            next(k for k, group in enumerate(groups) if group[0] == answer),
            max(k for k, group in enumerate(groups) if group[0] == answer) + 1,
        )
        for answer in answers
    }
    own_groups: dict[str, list[int]] = defaultdict(list)
    for k, (_, principal) in enumerate(groups):
        own_groups[principal].append(k)
    trusted = {(v.answer, v.principal) for v in votes if v.trusted}
    weight = np.array([TRUSTED_WEIGHT if group in trusted else 1 for group in groups])
    number = {answer: k for k, answer in enumerate(answers)}
    given = np.array([number[vote.answer] for vote in votes])
    found: dict[str, str] = {}
    for low in range(0, len(votes), _BLOCK):
        block = np.asarray((vectors[low : low + _BLOCK] @ vectors[order].T).todense(), dtype=np.float64)
        block[(block >= SAME) & (given[low : low + _BLOCK, None] != given[order])] = 0.0
        by_group = np.maximum.reduceat(block, starts, axis=1)
        for offset, vote in enumerate(votes[low : low + _BLOCK]):
            if vote.trusted:
                continue
            line = by_group[offset].copy()
            line[own_groups[vote.principal]] = 0.0
            tally = {a: _tally(line[s:e], weight[s:e]) for a, (s, e) in spans.items()}
            own = tally.pop(vote.answer)
            rival = max(tally, key=lambda a: (tally[a], a))
            if tally[rival] >= RIVAL_FLOOR and tally[rival] > RIVAL_RATIO * own:
                margin = f"{tally[rival]:.2f} to {own:.2f}"
                found[vote.row_id] = f"people with similar prompts gave another answer ({margin})"
    return found


def _tally(similarity: Any, weight: Any) -> float:
    """Mean of the NEIGHBOURS largest similarities; a trusted person's counts more than once."""
    import numpy as np

    best = np.sort(np.repeat(similarity, weight))[-NEIGHBOURS:]
    return float(best.sum()) / NEIGHBOURS


def rivals(votes: Sequence[Vote], similarity: float, rank: Callable[[Vote], Any]) -> dict[str, str]:
    """Row id -> why, for rows that lose, or cannot settle, a difference of opinion on nearly the same prompt.

    A trusted row wins (the highest by `rank` among several). Among untrusted ones an answer wins with at least twice
    the people of any other; otherwise none does.
    """
    index = NearIndex(similarity)
    clusters: dict[str, list[Vote]] = {}
    for vote in votes:
        name = next(index.matches(vote.prompt), None)
        if name is None:
            name = vote.row_id
            index.add(name, vote.prompt)
        clusters.setdefault(name, []).append(vote)
    found: dict[str, str] = {}
    for cluster in clusters.values():
        people: dict[str, set[str]] = defaultdict(set)
        for vote in cluster:
            people[vote.answer].add(vote.principal)
        if len(people) < 2:
            continue
        winner = _winner(cluster, people, rank)
        tally = ", ".join(str(len(group)) for _, group in sorted(people.items()))
        for vote in cluster:
            if vote.answer != winner:
                settled = "another answer was given to the same prompt" if winner else "no answer has a clear majority"
                found[vote.row_id] = f"{settled} (people for each: {tally})"
    return found


def _winner(cluster: Sequence[Vote], people: dict[str, set[str]], rank: Callable[[Vote], Any]) -> str | None:
    reviewed = [vote for vote in cluster if vote.trusted]
    if reviewed:
        return max(reviewed, key=rank).answer
    (first, most), (_, second) = sorted(people.items(), key=lambda item: (-len(item[1]), item[0]))[:2]
    return first if len(most) >= 2 * len(second) else None
