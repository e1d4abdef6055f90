"""From rows that meet the contract to rows that teach: each other row is left out with a reason.

    dropped          a reviewer said never
    suspect          new in a round that was blocked or rolled back
    personal_data    the answer holds personal data or its placeholder
    duplicate        the same person spoke again, or the same prompt and answer are there already
    dictated         the prompt itself says what to answer
    burst            one of many accounts that came together
    uncorroborated   too few independent trusted people gave this correction yet, or it is not from the one who asked
    conflict         another correction has the better claim to this prompt
    unreliable       most of what this person said was contradicted
    held_out         a held-out person's words on a prompt that teaches
    contaminated     the prompt is, or comes near, an evaluation prompt
    cap, balance     enough from this person; enough of this cluster of prompts
    untrusted        a thumb of an account that is too young, or known to be wrong (thumbs teach one by one)

Each rule is one file of `rules`; `pipeline` has their order, `configs.curation` their numbers. Rules work on columns
(`rows`), so that `curate` (records) and `curate_table` (Arrow) are the same.
"""

from data_contracts.curation.holdout import is_held_out
from data_contracts.curation.incidents import incident_rows, incident_teaching
from data_contracts.curation.listed import curate
from data_contracts.curation.results import (
    REASONS,
    TARGET,
    TRAIN,
    CurationResult,
    Embed,
    Person,
    Verdicts,
)
from data_contracts.curation.rows import conversation_text
from data_contracts.curation.tabled import curate_table
from data_contracts.curation.thumbs import curate_thumbs, held_prompts

__all__ = [
    "REASONS",
    "TARGET",
    "TRAIN",
    "CurationResult",
    "Embed",
    "Person",
    "Verdicts",
    "conversation_text",
    "curate",
    "curate_table",
    "curate_thumbs",
    "held_prompts",
    "incident_rows",
    "incident_teaching",
    "is_held_out",
]
