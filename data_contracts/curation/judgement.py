"""All votes weighed once for the rules that need it: who is heard, what is supported, what is contradicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from configs.curation import AgreementRule
from data_contracts.curation.claims import same_claims
from data_contracts.curation.clusters_of_accounts import burst_people, independence
from data_contracts.curation.desk import Desk
from data_contracts.curation.results import Embed
from data_contracts.curation.rows import DAY_US
from data_contracts.curation.space import Space, space_of
from data_contracts.curation.tally import NEAREST, Tally, Votes, tally
from data_contracts.curation.trust import trusted_people, vote_weights

CONTESTED = 0.5
"""A correction whose rival has this share of its own support is contradicted, for the test of lockstep."""


@dataclass(frozen=True)
class Judgement:
    """What the votes say; arrays over the votes."""

    votes: Votes
    tally: Tally
    given: np.ndarray
    """float64: support before the corrections that lose are silenced."""
    burst: np.ndarray
    """bool: one of a cluster of accounts whose answer nobody else of the neighbourhood supports."""
    outvoted: np.ndarray
    """bool: clearly more supported by its neighbours is another answer; a reviewed row never is."""


def judge(desk: Desk) -> Judgement | None:
    """Weigh the rows on the desk; None if there are none."""
    here, columns, policy = desk.here, desk.columns, desk.policy
    if not len(here):
        return None
    prompts, prompt = np.unique(columns.prompt[here], return_inverse=True)
    texts = [desk.conversation(int(columns.prompt_row[p])) for p in prompts]
    answers, answer = np.unique(columns.answer[here], return_inverse=True)
    person, reviewed = columns.principal[here].astype(np.int64), columns.reviewed[here]
    weight = vote_weights(person, reviewed, trusted_people(desk.facts, policy.trust), policy)
    votes = Votes(here, prompt.astype(np.int64), answer.astype(np.int64), person, reviewed, weight)
    if not policy.agreement.enabled:
        count, none = _counted(votes), np.zeros(len(here), dtype=bool)
        return Judgement(votes, count, count.support, none, none)
    space = space_of(texts, desk.facts.embed)
    near = space.nearest(NEAREST)
    if desk.facts.embed is not None:
        votes = _with_paraphrases(desk, votes, near, answers, desk.facts.embed)
    return _weighed(desk, votes, space, near)


def _counted(votes: Votes) -> Tally:
    """Support by equal answer anywhere, no contradiction."""
    _, first = np.unique(np.stack([votes.claim, votes.person], axis=1), axis=0, return_index=True)
    support = np.bincount(votes.claim[first], votes.weight[first], minlength=int(votes.claim.max()) + 1)
    nothing = np.zeros(len(votes.claim))
    return Tally(nothing, nothing, np.full(len(votes.claim), -1), support[votes.claim])


def _with_paraphrases(
    desk: Desk, votes: Votes, near: tuple[np.ndarray, np.ndarray], answers: np.ndarray, embed: Embed
) -> Votes:
    rule = desk.policy.agreement
    texts = [desk.rows.completion(int(desk.columns.answer_row[a])) for a in answers]
    given = np.unique(np.stack([votes.prompt, votes.claim], axis=1), axis=0)
    start = np.searchsorted(given[:, 0], np.arange(len(near[0]) + 1))
    one, column = np.nonzero(near[1] >= rule.paraphrase_cosine)
    found: set[tuple[int, int]] = set()
    for p, q in zip(one.tolist(), near[0][one, column].tolist(), strict=True):
        for a in given[start[p] : min(start[p + 1], start[p] + 8), 1].tolist():
            for b in given[start[q] : min(start[q + 1], start[q] + 8), 1].tolist():
                if a < b:
                    found.add((a, b))
    pairs = np.array(sorted(found), dtype=np.int64).reshape(-1, 2)
    claims = same_claims(pairs, texts, embed, rule.paraphrase_cosine, np.arange(len(answers)))
    return Votes(votes.place, votes.prompt, claims[votes.claim], votes.person, votes.reviewed, votes.weight)


def _weighed(desk: Desk, votes: Votes, space: Space, near: tuple[np.ndarray, np.ndarray]) -> Judgement:
    """First with every trusted person as one; then without accounts that come in clusters."""
    rule, policy = desk.policy.agreement, desk.policy
    first = tally(votes, space, near, rule)
    contested = (first.rival >= rule.floor) & (first.rival > CONTESTED * first.own)
    people = len(desk.columns.principals)
    alone = np.ones(people)
    if space.dense and policy.burst.enabled:
        # Words are too coarse for this: two topics that share words look as if they contradicted each other.
        alone = independence(np.where(contested, votes.claim, -1), votes.person, people, policy.burst.alpha)
    burst = np.zeros(len(contested), dtype=bool)
    if policy.burst.enabled:
        born = desk.facts.first_seen[votes.person]
        when = desk.columns.when[votes.place]
        young = when - born < policy.burst.young_days * DAY_US
        out = votes.reviewed | ~desk.facts.age_known[votes.person]
        against = np.where(contested, first.rival_claim, -1)
        flip = np.unique(np.stack([against, votes.claim], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
        for group in (flip, votes.claim):
            burst |= burst_people(np.where(out, -1, group), votes.person, when, young, born, policy.burst)
    independent = votes.weighted(np.where(votes.reviewed, votes.weight, votes.weight * alone[votes.person]))
    votes, count = independent, first
    if burst.any():
        votes, count = _without(independent, burst, space, near, rule)
        # Those whom others of their neighbourhood bear out were there by accident, and are heard after all. Asked once:
        # those who are heard again must not bear out the next.
        burst = burst & (count.support < policy.corroborating_principals)
        votes, count = _without(independent, burst, space, near, rule)
    elif (alone < 1).any():
        count = tally(votes, space, near, rule)
    given = count.support
    if space.dense:
        # A correction that loses is no support for another: else a few that agree hold each other up.
        losing = beaten(votes, count, rule, rule.losing_ratio)
        count = tally(votes.weighted(np.where(losing, 0.0, votes.weight)), space, near, rule) if losing.any() else count
    outvoted = beaten(votes, count, rule, rule.ratio if space.dense else rule.ratio_by_words)
    return Judgement(votes, count, given, burst, outvoted)


def _without(
    votes: Votes, burst: np.ndarray, space: Space, near: tuple[np.ndarray, np.ndarray], rule: AgreementRule
) -> tuple[Votes, Tally]:
    """The votes and their tally with the accounts of a burst silenced."""
    silent = np.isin(votes.person, votes.person[burst]) & ~votes.reviewed
    heard = votes.weighted(np.where(silent, 0.0, votes.weight))
    return heard, tally(heard, space, near, rule)


def beaten(votes: Votes, count: Tally, rule: AgreementRule, ratio: float) -> np.ndarray:
    """bool (votes,): another answer has `ratio` times the support of this one."""
    lost: np.ndarray = ~votes.reviewed & (count.rival >= rule.floor) & (count.rival > ratio * count.own)
    return lost
