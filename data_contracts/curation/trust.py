"""Whose word counts: account age, the record on gold items, and how much each has said."""

from __future__ import annotations

import numpy as np

from configs.curation import CurationSection, TrustRule
from data_contracts.curation.desk import Facts
from data_contracts.curation.rows import DAY_US

REVIEWER_WEIGHT = 2.0
"""A reviewed vote counts as those of so many people."""


def trusted_people(facts: Facts, rule: TrustRule) -> np.ndarray:
    """bool (principals,): old enough, and not known to be wrong on gold items."""
    old = facts.now - facts.first_seen >= rule.min_account_age_days * DAY_US
    # Laplace's rule, so that two of three do not make .67 and a wrong first answer does not damn anybody.
    accuracy = (facts.gold_right + 1) / (facts.gold_seen + 2)
    trusted: np.ndarray = old & ((facts.gold_seen < rule.min_gold) | (accuracy >= rule.min_gold_accuracy))
    return trusted


def vote_weights(person: np.ndarray, reviewed: np.ndarray, trusted: np.ndarray, policy: CurationSection) -> np.ndarray:
    """float64 (votes,): 1 for a trusted person within the cap; somebody who says more than the cap allows to teach is
    heard no louder than that in all.
    """
    spoken = np.bincount(person, minlength=len(trusted))
    cap = max(policy.max_rows_per_principal, int(policy.max_share_per_principal * len(person)))
    weight = np.where(trusted, np.minimum(1.0, cap / np.maximum(1, spoken)), 0.0)[person]
    return np.where(reviewed, REVIEWER_WEIGHT, weight)
