"""What incidents teach: their paraphrases with the reviewed answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from configs.curation import CurationSection
from data_contracts.curation.rules.contaminated import exam_index
from data_contracts.digests import digest
from data_contracts.overlap import PromptIndex, prompt_key
from data_contracts.records import Incident, Message, QuarantinedRow, SnapshotRow
from data_contracts.redaction import Redactor, contains_placeholder

CONTROL_TOKEN = re.compile(
    r"(?i)<[|｜][^|｜<>]{1,64}[|｜]>|</?s>|\[/?INST\]|<</?SYS>>"
    r"|<(?:bos|eos|pad|unk|mask|(?:start|end)_of_(?:turn|text))>"
)
"""What chat templates mark turns with (`<|im_end|>`); the pattern of the contracts' template-token rules."""


UNTAUGHT = "incident_untaught"
"""An incident that measures and teaches nothing."""


@dataclass(frozen=True)
class IncidentTeaching:
    """What incidents teach, and why the rest does not."""

    rows: list[SnapshotRow]
    reasons: dict[str, int] = field(default_factory=dict)
    """`incident.REASON` -> paraphrases that do not teach."""
    untaught: list[QuarantinedRow] = field(default_factory=list)
    """Incidents none of whose paraphrases teaches; each still measures, and a person should look at it."""


def _unteachable(text: str) -> str:
    """Why a text may not teach, as a reason code; empty if it may."""
    if not text.strip():
        return "incident.blank"
    if contains_placeholder(text):
        return "incident.redacted_data"
    return "incident.control_token" if CONTROL_TOKEN.search(text) is not None else ""


def incident_teaching(
    incidents: Sequence[Incident],
    eval_prompts: Iterable[str],
    config: CurationSection,
    redactor: Redactor | None = None,
) -> IncidentTeaching:
    """Training rows of incidents: their paraphrases with the reviewed answer, never an evaluation prompt.

    Texts are redacted once more, by the policy of today. Those with placeholders or chat control tokens are left out,
    as the contract does with feedback; an incident whose prompt or answer holds what the policy drops teaches nothing.
    A paraphrase that comes near an evaluation prompt in any way, or is an incident's own prompt, is left out.
    A row names its incident: `row_id` is `incident:ID`.

    Args:
        incidents: open and fixed ones; each one's exact prompt is its regression test.
        eval_prompts: prompts of anchors, target items and incidents.
        config: for the similarities.
        redactor: with the installation's policy and key; None masks everything.
    """
    redactor = redactor or Redactor()
    prompts = [next((m.content for m in reversed(i.messages) if m.role == "user"), "") for i in incidents]
    exam = exam_index(eval_prompts, config.decontamination)
    # An incident's own prompt is its test; another way of asking may well quote a part of it.
    own = PromptIndex(prompts, config.near_duplicate_similarity)
    rows: dict[str, SnapshotRow] = {}
    reasons: Counter[str] = Counter()
    untaught: list[QuarantinedRow] = []
    for incident in sorted(incidents, key=lambda i: i.id):
        session = redactor.session()
        said = [message.content for message in redactor.redact_messages(incident.messages, session)[0]]
        required, *paraphrases = (session.redact(text)[0] for text in (incident.required, *incident.paraphrases))
        whole = _unteachable(required)
        if not whole and redactor.policy.drop_reason([*said, required]) is not None:
            whole = "incident.dropped_by_policy"
        lost: Counter[str] = Counter()
        for paraphrase in paraphrases:
            why = whole or _unteachable(paraphrase)
            if not why and (exam.overlap(paraphrase) or own.overlap(paraphrase) in ("exact", "near")):
                why = "incident.contaminated"
            if why:
                lost[why] += 1
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
        reasons.update(lost)
        if lost.total() == len(paraphrases):
            untaught.append(_untaught(incident, whole, lost))
    return IncidentTeaching(list(rows.values()), dict(sorted(reasons.items())), untaught)


def _untaught(incident: Incident, whole: str, lost: Counter[str]) -> QuarantinedRow:
    if whole:
        why = f"its answer or prompt: {whole.removeprefix('incident.')}"
    elif lost:
        why = "its paraphrases: " + ", ".join(f"{r.removeprefix('incident.')} {n}" for r, n in sorted(lost.items()))
    else:
        why = "it has no paraphrases"
    # The digest is over its id alone, so that it gives no text away.
    named = digest(["incident", incident.id])
    return QuarantinedRow(row_id=incident.id, digest=named, reason=UNTAUGHT, detail=f"teaches nothing; {why}")


def incident_rows(
    incidents: Sequence[Incident],
    eval_prompts: Iterable[str],
    config: CurationSection,
    redactor: Redactor | None = None,
) -> list[SnapshotRow]:
    """The rows of `incident_teaching` alone."""
    return incident_teaching(incidents, eval_prompts, config, redactor).rows
