"""Who supports a correction and who contradicts it: the people whose prompts are most like its own.

Prompts that look alike should have been corrected alike. For each vote: `own` is how much the nearest people who gave
the same answer support it, `rival` the same for the strongest other answer, `support` how many trusted people in its
neighbourhood (itself among them) gave the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.curation import AgreementRule
from data_contracts.curation.rules.cap import rank_within
from data_contracts.curation.space import Space

NEAREST = 64
"""Prompts looked at around each prompt."""
SAMPLE = 256
"""People of one answer looked at for its own support."""
SAME = 0.98
"""Prompts at least this similar are the same prompt; a difference about one prompt is for the rivals rule to settle, so
a rival gets nothing from it. The same answer to the same prompt by somebody else is full support."""
_PER_PROMPT = 8
"""Answers of one prompt, and people of each, that are heard as neighbours."""
_BLOCK = 4096


@dataclass(frozen=True)
class Votes:
    """One entry a row on the desk, in time order."""

    place: np.ndarray
    """Row."""
    prompt: np.ndarray
    """int64: which text of the space."""
    claim: np.ndarray
    """int64: which answer, those that say the same in other words taken together."""
    person: np.ndarray
    reviewed: np.ndarray
    weight: np.ndarray
    """float64: what the vote counts as a person; 0 = not trusted."""

    def weighted(self, weight: np.ndarray) -> Votes:
        """The same votes with other weights."""
        return Votes(self.place, self.prompt, self.claim, self.person, self.reviewed, weight)


@dataclass(frozen=True)
class Tally:
    """float64 (votes,) each; `rival_claim` is -1 where nothing contradicts."""

    own: np.ndarray
    rival: np.ndarray
    rival_claim: np.ndarray
    support: np.ndarray


def tally(votes: Votes, space: Space, near: tuple[np.ndarray, np.ndarray], rule: AgreementRule) -> Tally:
    """Count.

    Args:
        votes: in an order that does not depend on how they arrived.
        space: the prompts' vectors.
        near: `space.nearest(NEAREST)`.
        rule: the numbers.
    """
    own, support = _own(votes, space, rule)
    rival, rival_claim = np.zeros(len(own)), np.full(len(own), -1, dtype=np.int64)
    voices = _Voices(votes)
    for low in range(0, len(own), _BLOCK):
        some = np.arange(low, min(low + _BLOCK, len(own)))
        near_own, near_rival, claim = voices.around(some, near, space.baseline, rule)
        own[some] = np.maximum(own[some], near_own)
        rival[some], rival_claim[some] = near_rival, claim
    return Tally(own, rival, rival_claim, support)


def _own(votes: Votes, space: Space, rule: AgreementRule) -> tuple[np.ndarray, np.ndarray]:
    own, support = np.zeros(len(votes.claim)), np.zeros(len(votes.claim))
    floor = rule.same_answer_cosine if space.dense else -1.0
    order = np.argsort(votes.claim, kind="stable")
    bounds = np.flatnonzero(np.r_[True, np.diff(votes.claim[order]) != 0, True]) if len(order) else np.zeros(1, int)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        members = order[start:end]
        heard = members[votes.weight[members] > 0]
        if len(heard) > SAMPLE:
            heard = heard[np.linspace(0, len(heard) - 1, SAMPLE).astype(np.int64)]
        heard = heard[np.argsort(votes.person[heard], kind="stable")]
        own_weight = np.where(votes.reviewed[members], 0.0, votes.weight[members])
        if not len(heard):
            continue
        first = np.flatnonzero(np.r_[True, np.diff(votes.person[heard]) != 0])
        weight = np.maximum.reduceat(votes.weight[heard], first)
        people = votes.person[heard][first]
        for low in range(0, len(members), _BLOCK):
            some = members[low : low + _BLOCK]
            alike = np.maximum.reduceat(space.block(votes.prompt[some], votes.prompt[heard]), first, axis=1)
            alike[votes.person[some][:, None] == people] = -2.0
            own[some] = _best(alike, weight, space.baseline, rule.neighbours)
            support[some] = (weight * (alike >= floor) * (alike > -2.0)).sum(axis=1) + own_weight[low : low + _BLOCK]
    return own, support


def _best(alike: np.ndarray, weight: np.ndarray, baseline: float, neighbours: int) -> np.ndarray:
    """Mean similarity of the `neighbours` most similar people; fewer count as zeros, a weight as so many people."""
    likeness = np.clip((alike - baseline) / (1 - baseline), 0, None)
    order = np.argsort(-likeness, axis=1, kind="stable")
    sorted_weight = weight[order]
    before = np.cumsum(sorted_weight, axis=1) - sorted_weight
    heard = np.clip(neighbours - before, 0, sorted_weight)
    total: np.ndarray = (np.take_along_axis(likeness, order, axis=1) * heard).sum(axis=1) / neighbours
    return total


class _Voices:
    """Trusted votes by prompt: the heaviest answers of each prompt and the heaviest people of each answer."""

    def __init__(self, votes: Votes) -> None:
        self.votes = votes
        heard = np.flatnonzero(votes.weight > 0)
        keys = votes.prompt[heard] * (int(votes.claim.max(initial=0)) + 1) + votes.claim[heard]
        _, pair = np.unique(keys, return_inverse=True)
        total = np.bincount(pair, votes.weight[heard]) if len(heard) else np.zeros(0)
        order = np.lexsort((votes.person[heard], -votes.weight[heard], pair, -total[pair], votes.prompt[heard]))
        heard, pair = heard[order], pair[order]
        new_pair = np.r_[True, pair[1:] != pair[:-1]] if len(pair) else np.zeros(0, dtype=bool)
        pair_rank = rank_within(votes.prompt[heard][new_pair])[np.cumsum(new_pair) - 1] if len(pair) else pair
        heard = heard[(rank_within(pair) < _PER_PROMPT) & (pair_rank < _PER_PROMPT)]
        self.heard = heard
        prompts = votes.prompt[heard]
        self.start = np.searchsorted(prompts, np.arange(int(votes.prompt.max(initial=-1)) + 1), side="left")
        self.end = np.searchsorted(prompts, np.arange(int(votes.prompt.max(initial=-1)) + 1), side="right")

    def around(
        self, some: np.ndarray, near: tuple[np.ndarray, np.ndarray], baseline: float, rule: AgreementRule
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each of some votes: its own tally among the neighbours, the strongest rival's, and that rival's claim."""
        votes = self.votes
        prompts, alike = near[0][votes.prompt[some]].ravel(), near[1][votes.prompt[some]].ravel()
        asker = np.repeat(some, near[0].shape[1])
        lengths = np.where(alike > baseline, self.end[prompts] - self.start[prompts], 0)
        asker, alike = np.repeat(asker, lengths), np.repeat(alike, lengths)
        within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        voice = self.heard[np.repeat(self.start[prompts], lengths) + within]
        claim = votes.claim[voice]
        keep = (votes.person[voice] != votes.person[asker]) & ((alike < SAME) | (claim == votes.claim[asker]))
        asker, voice, claim, alike = asker[keep], voice[keep], claim[keep], alike[keep]
        order = np.lexsort((-alike, votes.person[voice], claim, asker))
        asker, voice, claim, alike = asker[order], voice[order], claim[order], alike[order]
        person = votes.person[voice]
        new = np.ones(len(asker), dtype=bool)
        new[1:] = (asker[1:] != asker[:-1]) | (claim[1:] != claim[:-1]) | (person[1:] != person[:-1])
        asker, voice, claim, alike = asker[new], voice[new], claim[new], alike[new]
        order = np.lexsort((person[new], -alike, claim, asker))
        asker, voice, claim, alike = asker[order], voice[order], claim[order], alike[order]
        return self._sums(some, asker, claim, (alike - baseline) / (1 - baseline), votes.weight[voice], rule.neighbours)

    def _sums(
        self,
        some: np.ndarray,
        asker: np.ndarray,
        claim: np.ndarray,
        likeness: np.ndarray,
        weight: np.ndarray,
        neighbours: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        own, rival = np.zeros(len(some)), np.zeros(len(some))
        rival_claim = np.full(len(some), -1, dtype=np.int64)
        if not len(asker):
            return own, rival, rival_claim
        first = np.flatnonzero(np.r_[True, (np.diff(asker) != 0) | (np.diff(claim) != 0)])
        group = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(asker)]))
        running = np.cumsum(weight) - weight
        heard = np.clip(neighbours - (running - running[first][group]), 0, weight)
        total = np.bincount(group, likeness * heard) / neighbours
        who, what = asker[first] - some[0], claim[first]
        mine = what == self.votes.claim[asker[first]]
        own[who[mine]] = total[mine]
        who, what, total = who[~mine], what[~mine], total[~mine]
        order = np.lexsort((what, total, who))
        last = np.flatnonzero(np.r_[np.diff(who[order]) != 0, True]) if len(order) else order
        rival[who[order][last]], rival_claim[who[order][last]] = total[order][last], what[order][last]
        return own, rival, rival_claim
