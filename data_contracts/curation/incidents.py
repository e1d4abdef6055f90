"""What incidents teach: their paraphrases with the reviewed answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from configs.curation import CurationSection
from data_contracts.digests import digest
from data_contracts.overlap import PromptIndex, prompt_key
from data_contracts.records import Incident, Message, SnapshotRow
from data_contracts.redaction import Redactor, contains_placeholder

CONTROL_TOKEN = re.compile(
    r"(?i)<[|｜][^|｜<>]{1,64}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text))>"
)
"""What chat templates mark turns with (`<|im_end|>`); the pattern of the contracts' template-token rules."""


def _teachable(text: str) -> bool:
    return bool(text.strip()) and not contains_placeholder(text) and CONTROL_TOKEN.search(text) is None


def incident_rows(
    incidents: Sequence[Incident],
    eval_prompts: Iterable[str],
    config: CurationSection,
    redactor: Redactor | None = None,
) -> list[SnapshotRow]:
    """Training rows of incidents: their paraphrases with the reviewed answer, never an evaluation prompt.

    Texts are redacted once more, by the policy of today. Those with placeholders or chat control tokens are left out,
    as the contract does with feedback; an incident whose prompt or answer holds what the policy drops teaches nothing.
    A row names its incident: `row_id` is `incident:ID`.

    Args:
        incidents: open and fixed ones; each one's exact prompt is its regression test.
        eval_prompts: prompts of anchors, target items and incidents.
        config: for the similarity.
        redactor: with the installation's policy and key; None masks everything.
    """
    redactor = redactor or Redactor()
    prompts = [next((m.content for m in reversed(i.messages) if m.role == "user"), "") for i in incidents]
    protected = PromptIndex([*eval_prompts, *prompts], config.near_duplicate_similarity)
    rows: dict[str, SnapshotRow] = {}
    for incident in sorted(incidents, key=lambda i: i.id):
        session = redactor.session()
        said = [message.content for message in redactor.redact_messages(incident.messages, session)[0]]
        required, *paraphrases = (session.redact(text)[0] for text in (incident.required, *incident.paraphrases))
        if not _teachable(required) or redactor.policy.drop_reason([*said, required]) is not None:
            continue
        for paraphrase in paraphrases:
            if not _teachable(paraphrase) or protected.overlap(paraphrase) in ("exact", "near"):
                continue
            name = digest(["incident", incident.id, prompt_key(paraphrase), required])
            rows.setdefault(
                name,
                SnapshotRow(
                    digest=name,
                    split="train",
                    source="incident",
                    messages=(Message(role="user", content=paraphrase),),
                    completion=required,
                    row_id=f"incident:{incident.id}",
                    slice=incident.severity,
                ),
            )
    return list(rows.values())
