"""The nouns of the domain, one frozen record each. Every border between stages passes one of these.

Timestamps are UTC and aware; money is micro-dollars (int); shares are fractions in [0, 1].
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer


def utc_now() -> datetime:
    """The current time, aware, in UTC."""
    return datetime.now(UTC)


def _as_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a timestamp needs a time zone (for example 2026-01-31T12:00:00Z)")
    return value.astimezone(UTC)


UtcDatetime = Annotated[datetime, AfterValidator(_as_utc)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
BASE_VERSION = "base"


class Record(BaseModel):
    """Base of all records: frozen, unknown fields rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


# --- traffic ---------------------------------------------------------------------------------


class Message(Record):
    """One chat message."""

    role: Literal["system", "user", "assistant"]
    content: str


class Interaction(Record):
    """One served request, as stored: messages and answer are already redacted."""

    id: str
    created_at: UtcDatetime
    model: str
    principal: str
    conversation: str
    messages: tuple[Message, ...]
    prompt_version: str = ""
    answer: str
    arm: str = "champion"
    version: str = BASE_VERSION
    rollout_id: str | None = None
    route_revision: int = 0
    arm_share: Share = 1.0
    tokens_in: int = 0
    tokens_out: int = 0
    latency_ms: int = 0
    ttft_ms: int = 0
    cost_microdollars: int = 0
    flags: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


class FeedbackKind(StrEnum):
    """What a piece of feedback says."""

    THUMB = "thumb"
    RATING = "rating"
    CORRECTION = "correction"
    PREFERENCE = "preference"
    COMMENT = "comment"
    INCIDENT = "incident"


FEEDBACK_NEEDS: dict[FeedbackKind, tuple[str, ...]] = {
    FeedbackKind.THUMB: ("thumb",),
    FeedbackKind.RATING: ("rating",),
    FeedbackKind.CORRECTION: ("text",),
    FeedbackKind.PREFERENCE: ("text", "rejected"),
    FeedbackKind.COMMENT: ("text",),
    FeedbackKind.INCIDENT: ("label",),
}
"""What each kind must bring, wherever it comes from."""


def missing_field(said: Any) -> str | None:
    """The first field that feedback of this kind needs and does not bring (absent or blank), or None.

    Args:
        said: anything with a `kind` and the fields of `Feedback`.
    """
    for name in FEEDBACK_NEEDS[said.kind]:
        value = getattr(said, name)
        if value is None or (isinstance(value, str) and not value.strip()):
            return name
    return None


class Feedback(Record):
    """What somebody said of one interaction.

    `thumb` is +1 or -1; `rating` 1..5; `text` holds the correction, the preferred answer, the comment or
    the required answer of an incident; `rejected` the other answer of a preference; `label` an incident's class.
    """

    id: str
    interaction_id: str
    kind: FeedbackKind
    created_at: UtcDatetime
    principal: str
    scope: Literal["user", "review"] = "user"
    source: str = "api"
    thumb: Literal[-1, 1] | None = None
    rating: Annotated[int, Field(ge=1, le=5)] | None = None
    text: str | None = None
    rejected: str | None = None
    label: str | None = None
    salt: str = ""


# --- what may teach ----------------------------------------------------------------------------


class LabelledRow(Record):
    """Feedback joined with the interaction it points to: a candidate for teaching."""

    id: str
    """The feedback's id."""
    digest: str
    """SHA-256(salt, canonical row)."""
    interaction_id: str
    kind: FeedbackKind
    principal: str
    scope: Literal["user", "review"] = "user"
    created_at: UtcDatetime
    messages: tuple[Message, ...]
    answer: str
    """What the model said."""
    completion: str
    """What it should have said."""
    version: str = BASE_VERSION
    source: str = "api"
    asked_by: str = ""
    """The interaction's principal; empty = unknown. No part of the digest."""
    thumb: Literal[-1, 1] | None = None
    """Only of a thumb, whose completion is the answer it is about."""

    @property
    def prompt(self) -> str:
        """The last user message."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


class QuarantinedRow(Record):
    """A row that may not teach, and the rule it broke."""

    row_id: str
    digest: str
    reason: str
    """Reason code, for example `contract.completion_not_blank` or `uncorroborated`."""
    detail: str = ""
    status: Literal["held", "released", "dropped"] = "held"


class ContractReport(Record):
    """A batch against its contract: every row is either accepted or quarantined with its reason."""

    contract: str
    contract_digest: str
    rows: int
    accepted: tuple[str, ...]
    """Ids of accepted rows."""
    quarantined: tuple[QuarantinedRow, ...]
    warnings: tuple[str, ...] = ()

    @property
    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason code."""
        counts: dict[str, int] = {}
        for row in self.quarantined:
            counts[row.reason] = counts.get(row.reason, 0) + 1
        return dict(sorted(counts.items()))


OPTIONAL_COLUMNS = ("rejected", "label")
"""Fields of a snapshot's row that are left out of its digest where they are absent."""


class SnapshotRow(Record):
    """One row of a published snapshot."""

    digest: str
    split: Literal["train", "target", "incident"]
    source: Literal["correction", "incident", "preference", "replay", "thumb"]
    messages: tuple[Message, ...]
    completion: str
    """The answer to learn; of a thumb, the answer it is about."""
    row_id: str = ""
    """The feedback's id; `incident:ID` for a paraphrase of an incident; empty for replay."""
    slice: str = ""
    rejected: str | None = None
    """The other answer of a preference, to become less likely than the completion."""
    label: Literal[-1, 1] | None = None
    """A thumb: whether the completion should become more or less likely."""

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a row does not say is no part of it: rows from before these two fields keep their digest."""
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if value is not None or name not in OPTIONAL_COLUMNS}


class DatasetSnapshot(Record):
    """An immutable, content-addressed set of rows. The manifest is written last."""

    digest: str
    path: str
    model: str
    created_at: UtcDatetime
    contract_digest: str
    base_digest: str
    watermark: int
    """Highest commit sequence number that was considered."""
    counts: dict[str, int]
    """Rows per split and source, for example {"train.correction": 120}."""
    reasons: dict[str, int] = {}
    """Rows left out, by reason code."""
    row_ids: tuple[str, ...]
    """Feedback ids in the snapshot, without those of erased rows; empty where there are more than 10,000 of them."""
    row_ids_count: int = 0
    row_ids_digest: str = ""
    """Digest of the sorted feedback ids; they stand in the column `row_id` too."""
    replay: dict[str, str] = {}
    """Provenance of replay rows: base digest, prompt set digest, decoding."""
    sources: dict[str, str] = {}
    """Source name -> its watermark: how far each source had been read."""
    config_digest: str = ""
    """Digest of the curation policy."""
    rows_file: Annotated[str, Field(pattern=r"^rows[a-z0-9-]*\.parquet$")] = "rows.parquet"
    """The file of rows in the snapshot's folder; another one after an erasure."""
    erased: int = 0
    """Rows of which only a tombstone is left. A snapshot with any can no longer train; `counts` still has them."""

    @property
    def feedback_rows(self) -> int:
        """Feedback ids in the snapshot."""
        return self.row_ids_count or len(self.row_ids)


# --- adapter -----------------------------------------------------------------------------------


class AdapterArtifact(Record):
    """A trained LoRA adapter on disk."""

    digest: str
    path: str
    base_digest: str
    dataset_digest: str
    config_digest: str
    code_commit: str
    rank: int
    alpha: float
    steps: int
    tokens: int
    """Non-padding tokens seen in training."""
    seconds: float
    metrics: dict[str, float] = {}
    loss_curve: tuple[float, ...] = ()
    """Of each step."""
    held_out_curve: tuple[tuple[int, float], ...] = ()
    """(step, loss of the rows that did not train); empty without early stopping."""


class PrivacyMechanism(Record):
    """What one private run does to people's rows: the subsampled Gaussian mechanism, `steps` times over.

    Neighbours are data sets that differ by all rows of one person.
    """

    people: int
    sample_rate: float
    """Chance with which each person is drawn for a step, independently."""
    steps: int
    noise_multiplier: float
    """Standard deviation of the noise on the sum of a step's clipped gradients, in units of `max_grad_norm`."""
    max_grad_norm: float
    epsilon: float
    delta: float
    accountant: str
    library: str
    """Which version of which library counted, for example `opacus 1.6.0`."""


class PrivacyCharge(Record):
    """One line of the privacy ledger: what a private run took from the budget, written before it began."""

    id: str
    """Digest of everything that decides the run, its secret noise included: a resumed run has the same."""
    model: str
    request_id: str
    snapshot: str
    mechanism: PrivacyMechanism
    total_epsilon: float
    """Of all runs of the model up to and with this one, composed, at `total_delta`."""
    total_delta: float
    at: UtcDatetime


class AdapterRef(Record):
    """What an engine needs to load one adapter: the version's name, its files and the digests they must have."""

    version: str
    digest: str
    path: str
    base_digest: str


# --- verdict -----------------------------------------------------------------------------------


class EvalItem(Record):
    """One item of a suite."""

    id: str
    suite: str
    messages: tuple[Message, ...]
    reference: str
    scorer: str = "exact"
    """Name of a scorer, see `evaluation/scorers`; it says what `reference` and `choices` are."""
    choices: tuple[str, ...] = ()
    max_new_tokens: int = 32
    slice: str = ""
    """One name, or several separated by `|`."""
    variants: tuple[str, ...] = ()
    """Other ways of saying the last user message, for the suite `fragility`; no part of the item's digest."""
    threshold: float | None = None
    """Score from which the item counts as passed; None is the scorer's own."""
    unseen: bool = False
    """The reference must not be an answer of the training snapshot."""


class ItemScore(Record):
    """One model's result on one item."""

    item_id: str
    score: float
    """1 if the item was passed, else 0."""
    answer: str
    nll: float | None = None
    """Mean negative log-likelihood of the reference answer, nats per token; None where the reference is a pattern."""
    raw: float | None = None
    """What the scorer gave before its threshold, in [0, 1]; None where it gave 0 or 1."""


class SuiteScores(Record):
    """One model on one suite, items in the suite's order."""

    suite: str
    suite_digest: str
    model_digest: str
    """The adapter's digest, or the base's."""
    items: tuple[ItemScore, ...]

    @property
    def mean(self) -> float:
        """Mean score; nan if empty."""
        return sum(i.score for i in self.items) / len(self.items) if self.items else float("nan")


class SampledScores(Record):
    """Several answers to each item at the served temperature (`evaluation/sampling.py`)."""

    k: int
    """Answers to each item."""
    temperature: float
    n: int
    champion_mean: float
    candidate_mean: float
    difference: float
    """Candidate minus champion, mean over items."""
    lower: float
    upper: float
    """Two-sided interval, bootstrapped by item."""
    unsure: float
    """Share of items whose answers by the candidate did not all score alike."""


class JudgeUsage(Record):
    """What judging by a model took. Verdicts kept from before cost nothing and count in `kept` only."""

    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    order_flips: int = 0
    """Questions whose verdict changed with the order."""
    micro_dollars: int = 0
    """At the prices of the profile."""


class EvalReport(Record):
    """Base, champion and candidate on the same suites, per item."""

    candidate_digest: str
    champion_digest: str
    base_digest: str
    dataset_digest: str
    scores: dict[str, dict[str, SuiteScores]]
    """suite name -> {"base" | "champion" | "best" | "candidate": scores}; `best` not on every suite."""
    best_digest: str = ""
    """The best accepted version, where it is neither base nor champion; empty otherwise."""
    slices: dict[str, dict[str, str]] = {}
    """suite name -> {item id: slice}."""
    sampled: dict[str, SampledScores] = {}
    """suite name -> several answers an item, where that was asked for."""
    judge: JudgeUsage | None = None
    """What the judge model took, where items were judged by one."""
    seconds: float = 0.0


Against = Literal["champion", "base", "best"]
"""What a candidate is compared with; `best` is the best accepted version."""


class SuiteVerdict(Record):
    """The gate's finding on one suite against one reference model."""

    suite: str
    against: Against
    kind: Literal["superiority", "non_inferiority"]
    n: int
    reference_mean: float
    candidate_mean: float
    difference: float
    lower: float
    """Lower confidence bound of candidate - reference (one-sided, level alpha)."""
    upper: float
    margin: float
    """What the lower bound must exceed: minus this for non-inferiority, plus this (the least gain) for superiority."""
    listed: bool = False
    """A list of required behaviours, not a sample: its bounds decide nothing."""
    lost: int
    """Items 1 -> 0."""
    gained: int
    """Items 0 -> 1."""
    verdict: Literal["pass", "block", "inconclusive", "shown"]
    """`shown`: the policy does not judge this suite."""
    reason: str


class Finding(Record):
    """What else the gate found on a suite: likelihoods, negative flips, a slice.

    | measure | `value`, `lower`, `upper` | passes when |
    |---|---|---|
    | log_likelihood | mean change of the reference answers' log-likelihood, nats per token | `lower` > -`limit` |
    | negative_flips | share of all items the reference had right and the candidate has wrong | `upper` < `limit` |
    | slice | paired difference of the slice's items | `lower` > -`limit` |
    | fragility | share of items whose verdict hangs on the wording | (its suite has a rule) |
    """

    suite: str
    against: Against
    measure: Literal["log_likelihood", "negative_flips", "slice", "fragility"]
    slice: str = ""
    n: int
    """Items it is about."""
    value: float
    lower: float
    """One-sided bounds at level alpha."""
    upper: float
    limit: float | None = None
    """What the policy allows; None: shown, not judged."""
    lost: int = 0
    gained: int = 0
    verdict: Literal["pass", "block", "inconclusive", "shown", "warning"]
    """`shown` and `warning` decide nothing; a warning is a slice that lost significantly."""
    reason: str

    @property
    def title(self) -> str:
        """For sentences: the suite, what was looked at, and against what."""
        what = f"slice {self.slice}" if self.measure == "slice" else self.measure.replace("_", " ")
        return f"{self.suite}, {what}, against the {NAMES[self.against]}"


NAMES: dict[str, str] = {"champion": "champion", "base": "base", "best": "best accepted version"}
"""The models a candidate is compared with, for sentences."""


class GateDecision(Record):
    """Pass, block or inconclusive, with reasons."""

    verdict: Literal["pass", "block", "inconclusive"]
    objective: Literal["superiority", "non_inferiority"]
    suites: tuple[SuiteVerdict, ...]
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()
    policy_digest: str
    decided_at: UtcDatetime
    override_by: str | None = None
    override_reason: str | None = None

    @property
    def accepted(self) -> bool:
        """True if the candidate may be registered and served."""
        return self.verdict == "pass" or self.override_by is not None

    @property
    def without_words(self) -> GateDecision:
        """Without the slices that only the report shows: their names may be people's words, and a ledger keeps them."""
        kept = tuple(f for f in self.findings if f.measure != "slice" or f.limit is not None)
        return self.model_copy(update={"findings": kept})


class ModelVersion(Record):
    """A governed version in the registry."""

    model: str
    number: int
    adapter_digest: str
    base_digest: str
    dataset_digest: str
    config_digest: str
    code_commit: str
    gate: str
    run_id: str = ""
    uri: str = ""
    """Where the registry holds the files."""
    url: str = ""
    """A page a person can open."""
    tags: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The immutable name the serving engines use."""
        return f"{self.model}@v{self.number}"


# --- traffic routing and rollout -----------------------------------------------------------------


class Arm(Record):
    """What one arm of the pointer serves; `adapter` is None for the base."""

    version: str = BASE_VERSION
    adapter: AdapterRef | None = None


class RoutePointer(Record):
    """The serving pointer: one row per model, changed by compare-and-set on `revision`."""

    model: str
    revision: int
    champion: Arm
    canary: Arm | None = None
    canary_share: Share = 0.0
    salt: str = ""
    rollout_id: str | None = None


RolloutState = Literal["pending", "running", "promoted", "rolled_back", "aborted", "expired"]
OPEN_ROLLOUT_STATES = ("pending", "running")


class Rollout(Record):
    """One canary: from a registered candidate to a decision."""

    id: str
    model: str
    candidate: Arm
    previous: Arm
    state: RolloutState
    stage: int = 0
    created_at: UtcDatetime
    started_at: UtcDatetime | None = None
    stage_started_at: UtcDatetime | None = None
    ended_at: UtcDatetime | None = None
    request_id: str | None = None
    cause: str = ""
    salt: str
    latency_limit_ms: int | None = None
    """The champion's p95, frozen at the start."""
    approved_by: str = "gate"
    """`gate`, or the name recorded with an override."""
    reason: str = ""


class RolloutDecision(Record):
    """What the controller does next, and why."""

    action: Literal["hold", "ramp", "promote", "rollback", "expire"]
    reasons: tuple[str, ...]
    evidence: dict[str, Any] = {}


# --- retraining ----------------------------------------------------------------------------------


class Cause(Record):
    """Why a retrain is asked for."""

    kind: Literal["feedback", "drift", "incident", "schedule", "manual", "erasure"]
    at: UtcDatetime
    detail: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """A few words for run names and reports."""
        return str(self.detail.get("title") or self.kind)


RequestStatus = Literal["waiting", "ready", "claimed", "done", "failed", "cancelled"]
OPEN_REQUEST_STATUSES = ("waiting", "ready", "claimed")


class RetrainRequest(Record):
    """One open request per model; further triggers attach as causes.

    `waiting` for enough new rows, cooldown or budget; `ready` to be started; `claimed` by a run; then `done`
    (with `outcome`), `failed` or `cancelled`.
    """

    id: str
    model: str
    number: int
    """1, 2, 3 ... per model: what people call it."""
    status: RequestStatus
    causes: tuple[Cause, ...]
    created_at: UtcDatetime
    updated_at: UtcDatetime
    attempt: int = 0
    token: int = 0
    """Fencing token of the current claim."""
    owner: str = ""
    lease_until: UtcDatetime | None = None
    outcome: str = ""
    """promoted, rolled_back, blocked, inconclusive, no_data, aborted, expired, error."""
    detail: str = ""

    @property
    def title(self) -> str:
        """For example `retrain support-bot #12 - drift`."""
        kinds = "+".join(dict.fromkeys(c.kind for c in self.causes))
        return f"retrain {self.model} #{self.number} - {kinds}"


class Step(Record):
    """One step of a retrain in the ledger."""

    request_id: str
    name: str
    status: Literal["running", "done", "failed"]
    input_digest: str
    output: dict[str, Any] | None = None
    token: int
    started_at: UtcDatetime
    ended_at: UtcDatetime | None = None
    error: str = ""


class Incident(Record):
    """Something the model must never get wrong again: a prompt and the reviewed answer."""

    id: str
    model: str
    interaction_id: str | None = None
    title: str
    severity: Literal["low", "medium", "high", "critical"] = "high"
    messages: tuple[Message, ...]
    answer: str
    """What the model said."""
    required: str
    """The reviewed answer."""
    paraphrases: tuple[str, ...] = ()
    """Other ways of asking; these are trained on, the exact prompt never is."""
    status: Literal["open", "fixed", "rejected", "superseded"] = "open"
    """`rejected`: reviewers found that it is none. `superseded`: they gave another required answer, as an incident
    of its own. Neither teaches or measures any more."""
    opened_at: UtcDatetime
    opened_by: str
    root_cause: str = ""
    """A word of the review vocabulary, once a reviewer has said it."""


class AuditEntry(Record):
    """One link of the hash chain."""

    seq: int
    at: UtcDatetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    previous: str
    hash: str


# --- review --------------------------------------------------------------------------------------

ReviewKind = Literal["quarantine", "conflict", "incident", "sample", "gold", "answer"]
ReviewVerdict = Literal["accept", "reject", "correct"]
ReviewStatus = Literal["open", "labelled", "adjudicate", "done", "withdrawn"]
OPEN_REVIEW_STATUSES = ("open", "labelled", "adjudicate")


class ReviewPayload(Record):
    """What a labeller sees of an item; redacted."""

    messages: tuple[Message, ...]
    answer: str = ""
    """What the model said."""
    proposed: str = ""
    """The correction, or the required answer of an incident, that is to be judged."""
    options: tuple[str, ...] = ()
    """Other corrections of the same prompt."""
    title: str = ""
    severity: str = ""


class ReviewAnswer(Record):
    """What a labeller says of an item."""

    verdict: ReviewVerdict
    text: str = ""
    """The right answer; only with `correct`."""
    severity: str = ""
    root_cause: str = ""
    note: str = ""


class ReviewItem(Record):
    """One thing a person should look at.

    `open` for its first label, `labelled` while more independent labels are wanted, `adjudicate` if they differ,
    then `done` with an `outcome`, or `withdrawn`. A gold item stays open: everybody labels it once.
    """

    id: str
    model: str
    kind: ReviewKind
    subject: str
    """Id of the row, request, incident, gold item or answer it is about; unique within its kind."""
    payload: ReviewPayload
    guideline: str
    """Key of the guideline shown with it; of a gold item, that of the kind it looks like."""
    labels_wanted: int = 1
    priority: int = 0
    status: ReviewStatus = "open"
    reason: str = ""
    """Reason code of the rule that held the row, if any."""
    gold_expected: ReviewAnswer | None = None
    """The known answer of a gold item; never shown to a labeller."""
    outcome: ReviewVerdict | Literal[""] = ""
    created_at: UtcDatetime


class ReviewLabel(Record):
    """One person's answer to an item."""

    item: str
    labeller: str
    role: Literal["label", "adjudicate"] = "label"
    answer: ReviewAnswer
    at: UtcDatetime


class ReviewLease(Record):
    """An item lent to one labeller until `until`; a label needs its token."""

    item: str
    labeller: str
    token: str
    until: UtcDatetime
