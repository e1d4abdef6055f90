"""What incidents teach: their paraphrases with the reviewed answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from configs.curation import CurationSection
from data_contracts.digests import digest
from data_contracts.overlap import PromptIndex, prompt_key
from data_contracts.records import Incident, Message, SnapshotRow
from data_contracts.redaction import contains_placeholder

CONTROL_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,64}\|>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>", re.IGNORECASE
)
"""What chat templates mark turns with: `<|im_end|>` and the like."""


def _teachable(text: str) -> bool:
    return bool(text.strip()) and not contains_placeholder(text) and CONTROL_TOKEN.search(text) is None


def incident_rows(
    incidents: Sequence[Incident], eval_prompts: Iterable[str], config: CurationSection
) -> list[SnapshotRow]:
    """Training rows of incidents: their paraphrases with the reviewed answer, never an evaluation prompt.

    Texts with redaction placeholders or chat control tokens are left out, as the contract does with feedback.

    Args:
        incidents: open and fixed ones; each one's exact prompt is its regression test.
        eval_prompts: prompts of anchors, target items and incidents.
        config: for the similarity.
    """
    prompts = [next((m.content for m in reversed(i.messages) if m.role == "user"), "") for i in incidents]
    protected = PromptIndex([*eval_prompts, *prompts], config.near_duplicate_similarity)
    rows: dict[str, SnapshotRow] = {}
    for incident in sorted(incidents, key=lambda i: i.id):
        if not _teachable(incident.required):
            continue
        for paraphrase in incident.paraphrases:
            if not _teachable(paraphrase) or protected.overlap(paraphrase) in ("exact", "near"):
                continue
            name = digest(["incident", incident.id, prompt_key(paraphrase), incident.required])
            rows.setdefault(
                name,
                SnapshotRow(
                    digest=name,
                    split="train",
                    source="incident",
                    messages=(Message(role="user", content=paraphrase),),
                    completion=incident.required,
                    slice=incident.severity,
                ),
            )
    return list(rows.values())
