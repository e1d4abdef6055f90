"""From rows that meet the contract to rows that teach: each other row is left out with a reason.

    personal_data    the answer holds personal data or its placeholder
    redaction.card   (or another entity) the policy keeps rows with such a value from teaching
    duplicate        the same person spoke again, or the same prompt and answer are there already
    uncorroborated   too few independent people gave this correction yet, or it is not from the one who asked
    conflict         another correction has the better claim to this prompt
    contaminated     the prompt is, or is nearly, an evaluation prompt
    cap              enough from this person, or enough held-out items
    dropped          a reviewer said never

A principal is held out for ever by a salted hash; what they say becomes the target suite, under the same rules, and
never trains. The result does not depend on the order of the rows.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from configs.schema import CurationSection
from data_contracts.agreement import Vote, outvoted, rivals, uncorroborated
from data_contracts.digests import digest
from data_contracts.ids import is_the_asker
from data_contracts.overlap import NearIndex, PromptIndex, answer_key, prompt_key
from data_contracts.records import Incident, LabelledRow, Message, QuarantinedRow, SnapshotRow
from data_contracts.redaction import Redactor, contains_placeholder

CONTROL_TOKEN = re.compile(
    r"<\|[^|<>\s]{1,64}\|>|</?s>|<(?:bos|eos|pad|unk)>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>", re.IGNORECASE
)
"""What chat templates mark turns with: `<|im_end|>` and the like."""


@dataclass(frozen=True)
class CurationResult:
    """What teaches, what measures, and what does neither."""

    train: list[SnapshotRow]
    target: list[SnapshotRow]
    left_out: list[QuarantinedRow]

    @property
    def reasons(self) -> dict[str, int]:
        """Rows left out by reason code."""
        return dict(sorted(Counter(row.reason for row in self.left_out).items()))


def is_held_out(principal: str, config: CurationSection) -> bool:
    """True if this principal's rows measure and never train: SHA-256(salt, principal) below the share."""
    value = hashlib.sha256(f"{config.holdout_salt}\0{principal}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(value[:8], "big") < config.holdout_share * 2**64


def conversation_text(messages: Sequence[Message]) -> str:
    """All that was said, without the system message."""
    return "\n".join(message.content for message in messages if message.role != "system")


@dataclass
class _Desk:
    """The rows still on the desk, in an order of their own, and those left out so far."""

    rows: list[LabelledRow]
    trusted: Set[str]
    left_out: dict[str, QuarantinedRow] = field(default_factory=dict)

    def leave_out(self, reason: str, why: dict[str, str]) -> None:
        """Move rows (id -> detail) off the desk."""
        for row in self.rows:
            if row.id in why:
                self.left_out[row.id] = QuarantinedRow(
                    row_id=row.id,
                    digest=row.digest,
                    reason=reason,
                    detail=why[row.id],
                    status="dropped" if reason == "dropped" else "held",
                )
        self.rows = [row for row in self.rows if row.id not in why]

    def votes(self) -> list[Vote]:
        return [
            Vote(r.id, r.principal, conversation_text(r.messages), answer_key(r.completion), r.id in self.trusted)
            for r in self.rows
        ]


def curate(
    rows: Sequence[LabelledRow],
    released: Set[str],
    config: CurationSection,
    eval_prompts: Iterable[str],
    *,
    dropped: Set[str] = frozenset(),
    redactor: Redactor | None = None,
) -> CurationResult:
    """Decide what teaches.

    Args:
        rows: rows that met the contract, in any order.
        released: ids a person let through; they count as reviewed. An evaluation prompt is never let through.
        config: the policy.
        eval_prompts: prompts of anchors and incidents, which no training prompt may come near.
        dropped: ids a person ruled out for good.
        redactor: what redacts once more, with the installation's policy; masks everything by default.
    """
    ordered = sorted(rows, key=lambda row: (row.created_at, row.id))
    desk = _Desk(ordered, {row.id for row in rows if row.scope == "review"} | set(released))
    desk.leave_out("dropped", {row.id: "a reviewer ruled it out" for row in desk.rows if row.id in dropped})
    _redact_again(desk, released, redactor or Redactor())
    desk.leave_out("duplicate", _spoke_again(desk))
    desk.leave_out("uncorroborated", _no_voice(desk))
    desk.leave_out("uncorroborated", uncorroborated(desk.votes(), config.corroborating_principals))
    desk.leave_out("conflict", outvoted(desk.votes()))
    when = {row.id: (row.created_at, row.id) for row in desk.rows}
    similarity = config.near_duplicate_similarity
    desk.leave_out("conflict", rivals(desk.votes(), similarity, lambda vote: when[vote.row_id]))

    exam = [row for row in desk.rows if row.scope != "review" and is_held_out(row.principal, config)]
    examined = {row.id for row in exam}
    # All held-out prompts are protected, not only those chosen as items: the choice may change as rows arrive.
    protected = PromptIndex([*eval_prompts, *(row.prompt for row in exam)], similarity)
    target = _choose_target(desk, exam, config)
    desk.rows = [row for row in desk.rows if row.id not in examined]
    desk.leave_out("contaminated", _contaminated(desk.rows, protected))
    desk.leave_out("duplicate", _same_again(desk.rows, similarity, lambda row: answer_key(row.completion)))
    desk.leave_out("cap", _over_cap(desk, config))
    return CurationResult(
        train=[_snapshot_row(row, "train") for row in desk.rows],
        target=[_snapshot_row(row, "target") for row in target],
        left_out=sorted(desk.left_out.values(), key=lambda row: row.row_id),
    )


def _snapshot_row(row: LabelledRow, split: Any) -> SnapshotRow:
    return SnapshotRow(
        digest=row.digest,
        split=split,
        source="correction",
        messages=row.messages,
        completion=row.completion.strip(),
        row_id=row.id,
        slice=answer_key(row.completion)[:48],
    )


def _redact_again(desk: _Desk, released: Set[str], redactor: Redactor) -> None:
    """Rows from before a better redaction, or imported, are redacted like new ones."""
    clean, found = [], {}
    ruled_out: dict[str, dict[str, str]] = {}
    for row in desk.rows:
        session = redactor.session()
        messages, _ = redactor.redact_messages(row.messages, session)
        completion, _ = session.redact(row.completion)
        clean.append(row.model_copy(update={"messages": tuple(messages), "completion": completion}))
        if contains_placeholder(completion) and row.id not in released:
            found[row.id] = "the answer holds personal data"
        reason = redactor.policy.drop_reason([*(m.content for m in messages), completion])
        if reason is not None and row.id not in released:
            ruled_out.setdefault(reason, {})[row.id] = "the redaction policy keeps such rows from teaching"
    desk.rows = clean
    for reason, rows in sorted(ruled_out.items()):
        desk.leave_out(reason, rows)
    desk.leave_out("personal_data", found)


def _spoke_again(desk: _Desk) -> dict[str, str]:
    """One vote per person and prompt: what a reviewer let through, else the latest."""
    best: dict[tuple[str, str], LabelledRow] = {}
    for row in desk.rows:
        key = (row.principal, prompt_key(conversation_text(row.messages)))
        if key not in best or (row.id in desk.trusted) >= (best[key].id in desk.trusted):
            best[key] = row
    kept = {row.id for row in best.values()}
    return {row.id: "the same person said something later" for row in desk.rows if row.id not in kept}


def _no_voice(desk: _Desk) -> dict[str, str]:
    """Untrusted rows of somebody who did not ask, and all but the first on one interaction: names cost nothing."""
    spoken: set[str] = set()
    found = {}
    for row in desk.rows:
        if row.id in desk.trusted:
            continue
        if not is_the_asker(row.principal, row.asked_by):
            found[row.id] = "not from the person who asked"
        elif row.interaction_id in spoken:
            found[row.id] = "somebody else's correction of this answer came first"
        else:
            spoken.add(row.interaction_id)
    return found


def _same_again(rows: Sequence[LabelledRow], similarity: float, answer: Callable[[LabelledRow], str]) -> dict[str, str]:
    """Row id -> which earlier row it repeats: the same answer to the same or nearly the same conversation."""
    indexes: dict[str, NearIndex] = {}
    found: dict[str, str] = {}
    for row in rows:
        index = indexes.setdefault(answer(row), NearIndex(similarity))
        text = conversation_text(row.messages)
        earlier = next(index.matches(text), None)
        if earlier is not None:
            found[row.id] = f"repeats row {earlier}"
        else:
            index.add(row.id, text)
    return found


def _choose_target(desk: _Desk, exam: Sequence[LabelledRow], config: CurationSection) -> list[LabelledRow]:
    """One item per distinct held-out prompt; of too many those with the smallest salted hash, for stability."""
    desk.leave_out("duplicate", _same_again(exam, config.near_duplicate_similarity, lambda _: ""))
    distinct = [row for row in exam if row.id not in desk.left_out]
    distinct.sort(key=lambda row: digest([config.holdout_salt, prompt_key(conversation_text(row.messages))]))
    over = {
        row.id: f"more than {config.max_target_items} held-out items" for row in distinct[config.max_target_items :]
    }
    desk.leave_out("cap", over)
    return distinct[: config.max_target_items]


def _contaminated(rows: Sequence[LabelledRow], protected: PromptIndex) -> dict[str, str]:
    found = {}
    for row in rows:
        for message in row.messages:
            kind = protected.overlap(message.content) if message.role == "user" else None
            if kind:
                found[row.id] = f"an evaluation prompt ({kind})"
    return found


def _over_cap(desk: _Desk, config: CurationSection) -> dict[str, str]:
    """Each untrusted person's earliest rows up to the cap, which is a share of the rows before capping."""
    cap = max(config.max_rows_per_principal, int(config.max_share_per_principal * len(desk.rows)))
    seen: Counter[str] = Counter()
    found = {}
    for row in desk.rows:
        if row.id in desk.trusted:
            continue
        seen[row.principal] += 1
        if seen[row.principal] > cap:
            found[row.id] = f"more than {cap} rows of one person"
    return found


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
