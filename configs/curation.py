"""Who may teach: the policy of curation, one section a rule. The order of the rules is fixed (data_contracts/curation).

A rule with `enabled` can be switched off; the others are switched off by their numbers, as said beside them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from configs.section import Fraction, NonNegative, Part, Positive, Section, Size

Level = Annotated[float, Field(gt=0.0, lt=0.5)]


class TrustRule(Section):
    """Whose word counts when others' corrections are judged. Reviewers are always trusted."""

    min_account_age_days: NonNegative = 3.0
    """An account counts from this age on (first request to now); 0 trusts everybody from the first request."""
    min_gold: Size = 3
    """Gold items somebody must have answered before their record on them says anything."""
    min_gold_accuracy: Fraction = 0.7
    """Below this share of gold items right nobody is trusted."""


class SuspectRule(Section):
    """Rows that were new in a round that ended badly wait for a person."""

    outcomes: tuple[Literal["blocked", "rolled_back"], ...] = ("blocked", "rolled_back")
    """Ends of a retrain that make its new rows suspect; an empty list switches it off."""


class DictatedRule(Section):
    """Corrections that the prompt itself dictates."""

    enabled: bool = True
    min_words: Size = 4
    """An answer of so many words that stands in the prompt word for word is dictated if it is told there to say it, or
    if it is most of what was said."""


class BurstRule(Section):
    """Clusters of accounts that give one answer: too many young ones, or too many of one week."""

    enabled: bool = True
    young_days: NonNegative = 7.0
    """An account younger than this when it spoke is young."""
    window_days: Positive = 2.0
    """Accounts that came within this time of each other are of one cohort."""
    min_accounts: Size = 5
    alpha: Level = 1e-4
    """Chance of holding any group of a round by accident."""


class AgreementRule(Section):
    """Which corrections agree, and which are contradicted by the corrections of similar prompts."""

    enabled: bool = True
    neighbours: Size = 5
    """People whose similar prompts are heard, for each answer."""
    ratio: Annotated[float, Field(gt=1)] = 3.0
    """A correction is outvoted by an answer with this many times its support (embeddings)."""
    losing_ratio: Annotated[float, Field(gt=1)] = 1.35
    """A correction against which another answer has this many times its support is heard for nobody
    else (embeddings)."""
    ratio_by_words: Annotated[float, Field(gt=1)] = 1.8
    """`ratio` where prompts are compared by words: those do not say enough to silence anybody for losing."""
    floor: Fraction = 0.08
    """Support below this says nothing."""
    same_answer_cosine: Fraction = 0.5
    """The same answer agrees if the prompts are at least this similar (embeddings; without them anywhere)."""
    paraphrase_cosine: Fraction = 0.8
    """Answers in other words agree if prompts and answers are this similar and numbers and names are the same."""
    mistake_rate: Part = 0.05
    """Share of people expected to be wrong about one prompt; a minority too large for that sends it to review."""
    mistake_alpha: Level = 0.02
    min_judged: Size = 4
    """Somebody with so many judged corrections, most of them outvoted, is not believed in the rest."""


class DecontaminationRule(Section):
    """How near a training prompt may come to an evaluation prompt."""

    similarity: Fraction = 0.7
    """Jaccard similarity of word 3-shingles, and of letter 3-grams with the same digits, from which it is the same (a
    slip of the finger in a prompt of 28 letters leaves .73)."""
    min_contained_words: Size = 6
    """An evaluation prompt of so many words that stands whole inside another prompt contaminates it; from 13 words on
    any 13 of them do."""


class BalanceRule(Section):
    """No cluster of prompts may make up most of what is taught."""

    max_share: Fraction = 0.05
    """Of the round's rows, for each cluster; 1 switches it off."""
    min_rows: Size = 20
    """A cluster may always have this many."""
    similarity: Fraction = 0.7
    """Jaccard similarity of word 3-shingles within a cluster."""


class CurationSection(Section):
    """What may teach (SCIENCE: rounds, and who may teach)."""

    holdout_share: Part = 0.2
    """Share of principals held out for ever (their rows are the target suite, never trained)."""
    holdout_salt: Annotated[str, Field(min_length=1)] = "tidemill-holdout-1"
    """Who is held out is a hash of this and the name; another salt holds out other people."""
    corroborating_principals: Size = 2
    """Independent trusted people that must agree before a correction teaches; 1 switches it off."""
    max_rows_per_principal: Size = 3
    max_share_per_principal: Fraction = 0.01
    """A principal's rows are capped at max(max_rows_per_principal, share x rows); scope `review` is exempt."""
    near_duplicate_similarity: Fraction = 0.98
    """Prompts at or above this Jaccard similarity of word 3-shingles are one prompt; with the same answer, one row."""
    max_target_items: Size = 200
    embeddings: bool = False
    """Compare prompts by sentence embeddings (`model.embedder`), each distinct text embedded once; else by words."""
    trust: TrustRule = TrustRule()
    suspects: SuspectRule = SuspectRule()
    dictated: DictatedRule = DictatedRule()
    burst: BurstRule = BurstRule()
    agreement: AgreementRule = AgreementRule()
    decontamination: DecontaminationRule = DecontaminationRule()
    balance: BalanceRule = BalanceRule()
