"""Accounts that are not independent: bursts of young ones, cohorts registered together, votes in lockstep.

All three are tests against the round's own base rate, so that a platform on its first day (everybody is young) or a
new topic that everybody asks about holds nobody up.
"""

from __future__ import annotations

import numpy as np

from configs.curation import BurstRule

MAX_FLIPS = 12
"""Contradicted corrections of one person that are looked at for lockstep."""
MIN_LOCKSTEP = 3
OVERDISPERSION = 3.0
"""People's interests are not independent: so many times the shared corrections that chance gives are still chance."""


def burst_people(
    group: np.ndarray, person: np.ndarray, when: np.ndarray, young: np.ndarray, born: np.ndarray, rule: BurstRule
) -> np.ndarray:
    """bool (votes,): the vote is one of a cluster of accounts.

    Args:
        group: int (votes,) which answer against which; -1 = not looked at.
        person: int (votes,).
        when: int64 (votes,) microseconds.
        young: bool (votes,) the account was young when it spoke.
        born: int64 (votes,) when the account was first seen.
        rule: the numbers.
    """
    found = np.zeros(len(group), dtype=bool)
    order = np.lexsort((when, group))
    order = order[group[order] >= 0]
    bounds = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0, True]) if len(order) else np.zeros(1, int)
    sizes = np.diff(bounds)
    looked_at = int((sizes >= rule.min_accounts).sum())
    if not looked_at:
        return found
    world = _World(person, when, young, born, round(rule.window_days * 86_400_000_000))
    level = rule.alpha / (3 * looked_at)
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if end - start < rule.min_accounts:
            continue
        members = order[start:end]
        found[members] |= world.too_many_young(members, level, rule.min_accounts)
        found[members] |= world.too_many_of_one_time(members, level, rule.min_accounts)
    return found


class _World:
    """All votes of the round, to compare a group with."""

    def __init__(self, person: np.ndarray, when: np.ndarray, young: np.ndarray, born: np.ndarray, window: int) -> None:
        self.person, self.when, self.young, self.born, self.window = person, when, young, born, window
        _, first = np.unique(person, return_index=True)
        self.all_born = np.sort(born[first])

    def too_many_young(self, members: np.ndarray, level: float, least: int) -> np.ndarray:
        """bool (members,): young votes of a group with more of them, in all or within the window, than elsewhere."""
        from scipy.stats import binom

        young = self.young[members]
        count = len(np.unique(self.person[members[young]]))
        if count < least:
            return np.zeros(len(members), dtype=bool)
        share = (self.young.sum() - young.sum() + 1) / (len(self.young) - len(members) + 2)
        if binom.sf(count - 1, len(np.unique(self.person[members])), share) < level:
            return young
        when = self.when[members]  # ascending
        ends = np.searchsorted(when, when + self.window, side="right")
        before = np.r_[0, np.cumsum(young)]
        inside, total = before[ends] - before[:-1], ends - np.arange(len(members))
        hot = (inside >= least) & (binom.sf(inside - 1, total, share) < level / len(members))
        return young & _covered(hot, ends)

    def too_many_of_one_time(self, members: np.ndarray, level: float, least: int) -> np.ndarray:
        """bool (members,): accounts of a group registered together, unlike those of everybody else."""
        from scipy.stats import binom

        people, first = np.unique(self.person[members], return_index=True)
        if len(people) < least or len(self.all_born) <= len(people):
            return np.zeros(len(members), dtype=bool)
        order = np.argsort(self.born[members][first], kind="stable")
        born = self.born[members][first][order]
        ends = np.searchsorted(born, born + self.window, side="right")
        inside = ends - np.arange(len(born))
        # Three windows' worth of everybody else: an edge between two groups that came together is no cohort.
        everybody = np.searchsorted(self.all_born, born + 2 * self.window, side="right") - np.searchsorted(
            self.all_born, born - self.window, side="left"
        )
        share = (np.maximum(0, everybody - inside) + 1) / (len(self.all_born) - len(born) + 1)
        hot = (inside >= least) & (binom.sf(inside - 1, len(born), np.minimum(1, share)) < level / len(born))
        cohort = people[order][_covered(hot, ends)]
        return np.isin(self.person[members], cohort)


def _covered(hot: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """bool (n,): places in any of the hot windows [i, ends[i])."""
    steps = np.zeros(len(hot) + 1, dtype=np.int64)
    np.add.at(steps, np.flatnonzero(hot), 1)
    np.add.at(steps, ends[hot], -1)
    covered: np.ndarray = np.cumsum(steps)[:-1] > 0
    return covered


def independence(flip: np.ndarray, person: np.ndarray, people: int, alpha: float) -> np.ndarray:
    """float64 (people,): 1 for somebody who speaks for himself, 1/g for one of g who share contradicted corrections.

    Sharing what others contradict is what copies do (Dong, Berti-Equille and Srivastava, 2009): for each pair of
    contradicted corrections, how many people gave both, against the Poisson expectation if they did not know of
    each other.

    Args:
        flip: int (votes,) which answer against which; -1 = not contradicted.
        person: int (votes,).
        people: number of people.
        alpha: chance of discounting anybody by accident.
    """
    from scipy.stats import poisson

    weight = np.ones(people)
    keys = np.unique(np.stack([person[flip >= 0], flip[flip >= 0]], axis=1), axis=0)
    if not len(keys):
        return weight
    holders = dict(zip(*(x.tolist() for x in np.unique(keys[:, 1], return_counts=True)), strict=True))
    by_pair: dict[tuple[int, int], list[int]] = {}
    bounds = np.flatnonzero(np.r_[True, np.diff(keys[:, 0]) != 0, True])
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        # The corrections most people share say most about lockstep.
        flips = sorted(sorted(keys[start:end, 1].tolist(), key=lambda f: (-holders[f], f))[:MAX_FLIPS])
        for n, one in enumerate(flips):
            for other in flips[n + 1 :]:
                by_pair.setdefault((one, other), []).append(int(keys[start, 0]))
    active = len(np.unique(person))
    looked_at = [(pair, group) for pair, group in by_pair.items() if len(group) >= MIN_LOCKSTEP]
    for (one, other), group in looked_at:
        expected = OVERDISPERSION * holders[one] * holders[other] / active
        if poisson.sf(len(group) - 1, expected) < alpha / len(looked_at):
            # What chance would give among the others: the group's own corrections are no base rate.
            others = (holders[one] - len(group) + 1) * (holders[other] - len(group) + 1)
            weight[group] = np.minimum(weight[group], max(1.0, OVERDISPERSION * others / active) / len(group))
    return weight
