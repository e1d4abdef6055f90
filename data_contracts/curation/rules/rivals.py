"""`conflict`: different corrections of the same prompt. Stops both sides of an open question from teaching: it goes to
review unless a reviewer has spoken or one answer has a clear majority of independent people.
"""

from __future__ import annotations

import numpy as np

from configs.curation import AgreementRule
from data_contracts.curation.desk import Desk
from data_contracts.curation.judgement import Judgement

REASON = "conflict"


def apply(desk: Desk, judged: Judgement) -> None:
    """Settle each prompt with more than one answer, or leave all of its rows out."""
    votes = judged.votes
    open_ = np.flatnonzero(desk.code[votes.place] == 0)
    cluster = desk.cluster[desk.columns.prompt[votes.place[open_]]]
    order = np.lexsort((votes.place[open_], cluster))
    open_, cluster = open_[order], cluster[order]
    bounds = np.flatnonzero(np.r_[True, np.diff(cluster) != 0, True]) if len(open_) else np.zeros(1, int)
    claims = votes.claim[open_]
    differs = np.r_[False, (claims[1:] != claims[:-1]) & (cluster[1:] == cluster[:-1])]
    mixed = np.add.reduceat(differs, bounds[:-1]) > 0 if len(open_) else np.zeros(0, dtype=bool)
    for start, end in zip(bounds[:-1][mixed].tolist(), bounds[1:][mixed].tolist(), strict=True):
        _settle(desk, judged, open_[start:end])


def _settle(desk: Desk, judged: Judgement, members: np.ndarray) -> None:
    votes = judged.votes
    claims, claim = np.unique(votes.claim[members], return_inverse=True)
    heads = np.zeros(len(claims))
    for number in range(len(claims)):
        mine = members[claim == number]
        people, who = np.unique(votes.person[mine], return_inverse=True)
        weight = np.zeros(len(people))
        np.maximum.at(weight, who, votes.weight[mine])
        # Where nobody is trusted (no corroboration asked for) heads are counted.
        heads[number] = weight.sum() if votes.weight[members].any() else len(people)
    reviewed = members[votes.reviewed[members]]
    if len(reviewed):
        winner = int(np.searchsorted(claims, votes.claim[reviewed[-1]]))
    else:
        own = np.bincount(claim, judged.tally.own[members]) / np.bincount(claim)
        winner = clear_winner(heads, own, desk.policy.agreement)
    lost = members[claim != winner]
    settled = "another answer was given to the same prompt" if winner >= 0 else "no answer has a clear majority"
    tally = ", ".join(f"{n:.2g}" for n in sorted(heads.tolist(), reverse=True))
    desk.leave_out(REASON, votes.place[lost], f"{settled} (people for each: {tally})")


def clear_winner(heads: np.ndarray, own: np.ndarray, rule: AgreementRule) -> int:
    """Place of the answer that wins, -1 if none does.

    It has at least twice the people of any other, and the others are few enough to be mistakes (binomial test at
    `mistake_rate`). Where it is one word against another, similar prompts may settle it: `losing_ratio` times the
    support of any other answer among them.

    Args:
        heads: (answers,) people for each.
        own: (answers,) what the people with similar prompts give each.
        rule: the numbers.
    """
    from scipy.stats import binom

    order = np.argsort(-heads, kind="stable")
    first, second = float(heads[order[0]]), float(heads[order[1]])
    if first < 2 * second:
        best, next_best = np.argsort(-own, kind="stable")[:2].tolist()
        if (
            own[best] >= rule.floor
            and own[best] > rule.losing_ratio * own[next_best]
            and first <= 1
            and heads[best] > 0
        ):
            return int(best)
        return -1
    total, others = round(float(heads.sum())), round(second)
    if others and binom.sf(others - 1, total, rule.mistake_rate) < rule.mistake_alpha:
        return -1
    return int(order[0])
