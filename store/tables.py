"""The tables. Rows are facts; what is derived is derived on reading.

`seq` is a commit sequence shared by interactions and feedback: the writer takes its numbers from the one row of
`counters` inside the committing transaction, so the order of `seq` is the order of commits on both databases.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime on both databases; SQLite keeps it as text that sorts by time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Into the database: in UTC, without the zone where the database has none."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime for the store: {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Out of the database: aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
Time = UtcTime()

counters = Table(
    "counters", metadata, Column("name", String(32), primary_key=True), Column("value", BigInteger, nullable=False)
)

interactions = Table(
    "interactions",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("created_at", Time, nullable=False),
    Column("model", String(63), nullable=False),
    Column("principal", String(128), nullable=False, index=True),
    Column("conversation", String(128), nullable=False),
    Column("messages", JSON, nullable=False),
    Column("prompt_version", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    Column("arm", String(16), nullable=False),
    Column("version", String(96), nullable=False),
    Column("rollout_id", String(36)),
    Column("route_revision", Integer, nullable=False),
    Column("arm_share", Float, nullable=False),
    Column("tokens_in", Integer, nullable=False),
    Column("tokens_out", Integer, nullable=False),
    Column("latency_ms", Integer, nullable=False),
    Column("ttft_ms", Integer, nullable=False),
    Column("cost_microdollars", BigInteger, nullable=False),
    Column("flags", JSON, nullable=False),
    Index("ix_interactions_model_seq", "model", "seq"),
    Index("ix_interactions_rollout_seq", "rollout_id", "seq"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    # No foreign key: feedback for a valid id whose interaction is not committed yet waits here and joins later.
    Column("interaction_id", String(80), nullable=False, index=True),
    Column("model", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("created_at", Time, nullable=False),
    Column("principal", String(128), nullable=False, index=True),
    Column("scope", String(16), nullable=False),
    Column("source", String(32), nullable=False),
    Column("thumb", Integer),
    Column("rating", Integer),
    Column("text", Text),
    Column("rejected", Text),
    Column("label", String(128)),
    Column("salt", String(64), nullable=False),
    Index("ix_feedback_model_seq", "model", "seq"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("interaction_id", String(80)),
    Column("title", String(256), nullable=False),
    Column("severity", String(16), nullable=False),
    Column("messages", JSON, nullable=False),
    Column("answer", Text, nullable=False),
    Column("required", Text, nullable=False),
    Column("paraphrases", JSON, nullable=False),
    Column("status", String(16), nullable=False),
    Column("opened_at", Time, nullable=False),
    Column("opened_by", String(128), nullable=False),
    Column("root_cause", String(64), nullable=False, server_default=text("''")),
    # None while it is open.
    Column("closed_at", Time),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("row_id", String(64), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("digest", String(64), nullable=False),
    Column("reason", String(96), nullable=False),
    Column("detail", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("request_id", String(36)),
    Column("updated_at", Time, nullable=False),
    Index("ix_quarantine_model_status", "model", "status", "reason"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("created_at", Time, nullable=False),
    Column("watermark", BigInteger, nullable=False),
    Column("record", JSON, nullable=False),
)

snapshot_rows = Table(
    "snapshot_rows",
    metadata,
    Column("snapshot", String(64), primary_key=True),
    Column("row_id", String(64), primary_key=True, index=True),
    Column("split", String(16), nullable=False),
)

requests = Table(
    "retrain_requests",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("open", Boolean, nullable=False),
    Column("causes", JSON, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("owner", String(128), nullable=False),
    Column("lease_until", Time),
    Column("outcome", String(32), nullable=False),
    Column("detail", Text, nullable=False),
    UniqueConstraint("model", "number"),
    # One open request per model, whatever the number of triggers.
    Index(
        "uq_retrain_requests_one_open",
        "model",
        unique=True,
        sqlite_where=text("open = 1"),
        postgresql_where=text("open"),
    ),
)

steps = Table(
    "steps",
    metadata,
    Column("request_id", String(36), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("status", String(16), nullable=False),
    Column("input_digest", String(64), nullable=False),
    Column("output", JSON),
    Column("token", Integer, nullable=False),
    Column("started_at", Time, nullable=False),
    Column("ended_at", Time),
    Column("error", Text, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("name", String(96), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("adapter_digest", String(64), nullable=False, index=True),
    Column("dataset_digest", String(64), nullable=False, index=True),
    Column("request_id", String(36)),
    Column("created_at", Time, nullable=False),
    Column("adapter_path", Text, nullable=False),
    Column("approved_by", String(128), nullable=False),
    Column("record", JSON, nullable=False),
)

pointers = Table(
    "pointers",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("record", JSON, nullable=False),
    Column("updated_at", Time, nullable=False),
)

route_revisions = Table(
    "route_revisions",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("record", JSON, nullable=False),
    Column("at", Time, nullable=False),
    Column("reason", Text, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("loaded", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("heartbeat_at", Time, nullable=False),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("open", Boolean, nullable=False),
    Column("request_id", String(36), index=True),
    Column("created_at", Time, nullable=False),
    Column("record", JSON, nullable=False),
    Index("uq_rollouts_one_open", "model", unique=True, sqlite_where=text("open = 1"), postgresql_where=text("open")),
)

rollout_evidence = Table(
    "rollout_evidence",
    metadata,
    # A user's first bad event per metric and rollout, whichever arm.
    Column("rollout_id", String(36), primary_key=True),
    Column("metric", String(32), primary_key=True),
    Column("principal", String(128), primary_key=True),
    Column("arm", String(16), nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("q", Float, nullable=False),
)

rollout_state = Table(
    "rollout_state",
    metadata,
    Column("rollout_id", String(36), primary_key=True),
    Column("watermark", BigInteger, nullable=False),
    Column("state", JSON, nullable=False),
    Column("history", JSON, nullable=False),
    Column("updated_at", Time, nullable=False),
)

drift_states = Table(
    "drift_states",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("watermark", BigInteger, nullable=False),
    Column("reference", String(64), nullable=False),
    Column("state", JSON, nullable=False),
    Column("updated_at", Time, nullable=False),
)

drift_findings = Table(
    "drift_findings",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("at", Time, nullable=False),
    Column("test", String(32), nullable=False),
    Column("name", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(128), nullable=False),
    Column("token", Integer, nullable=False),
    Column("until", Time, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("key", String(128), nullable=False, unique=True),
    Column("payload", JSON, nullable=False),
    Column("created_at", Time, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("delivered_at", Time),
    Column("error", Text, nullable=False),
)

review_items = Table(
    "review_items",
    metadata,
    Column("id", String(24), primary_key=True),
    Column("model", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("guideline", String(32), nullable=False),
    Column("labels_wanted", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("reason", String(96), nullable=False),
    Column("gold_expected", JSON(none_as_null=True)),
    Column("outcome", String(16), nullable=False),
    Column("created_at", Time, nullable=False),
    Column("updated_at", Time, nullable=False),
    UniqueConstraint("kind", "subject"),
    Index("ix_review_items_model_status", "model", "status", "priority"),
)

review_links = Table(
    "review_links",
    metadata,
    # Whose words an item shows (`person`) and which rows, requests and incidents it is about (`about`).
    Column("item", String(24), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("value", String(128), primary_key=True, index=True),
)

review_leases = Table(
    "review_leases",
    metadata,
    Column("item", String(24), primary_key=True),
    Column("labeller", String(128), nullable=False, index=True),
    Column("token", String(32), nullable=False),
    Column("until", Time, nullable=False),
)

review_labels = Table(
    "review_labels",
    metadata,
    # One label per person and item, an adjudicator's too.
    Column("item", String(24), primary_key=True),
    Column("labeller", String(128), primary_key=True, index=True),
    Column("role", String(12), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("severity", String(16), nullable=False),
    Column("root_cause", String(64), nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Time, nullable=False),
)

review_feeds = Table(
    "review_feeds",
    metadata,
    Column("model", String(63), primary_key=True),
    Column("sampled_upto", BigInteger, nullable=False),
    Column("updated_at", Time, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Time, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(160), nullable=False),
    Column("detail", JSON, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(36), primary_key=True),
    # A keyed pseudonym, never the name.
    Column("pseudonym", String(64), nullable=False, index=True),
    Column("by", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("open", Boolean, nullable=False),
    Column("requested_at", Time, nullable=False),
    Column("deadline", Time, nullable=False),
    Column("ended_at", Time),
    # Commit number up to which the person's rows were taken.
    Column("upto_seq", BigInteger, nullable=False),
    # What the files and servers are cleaned by: ids of retrains, snapshots, tracking runs; never text.
    Column("places", JSON, nullable=False),
    Column("steps", JSON, nullable=False),
    Index(
        "uq_erasures_open_person",
        "pseudonym",
        unique=True,
        sqlite_where=text("open = 1"),
        postgresql_where=text("open"),
    ),
)

erased = Table(
    "erased",
    metadata,
    # Ids of erased requests, feedback and incidents: nothing comes in under them again.
    Column("id", String(80), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("erasure", String(36), nullable=False, index=True),
)

tainted = Table(
    "tainted_versions",
    metadata,
    Column("version", String(96), primary_key=True),
    Column("erasure", String(36), primary_key=True),
    Column("at", Time, nullable=False),
    Column("deadline", Time, nullable=False),
)

salts = Table(
    "salts",
    metadata,
    # Of rows that have no salt column of their own (incidents); deleted with the row.
    Column("name", String(64), primary_key=True),
    Column("salt", String(64), nullable=False),
)

first_seen = Table(
    "first_seen",
    metadata,
    # Of those whose requests retention deleted, by keyed pseudonym: an account gets no younger by it.
    Column("model", String(63), primary_key=True),
    Column("pseudonym", String(64), primary_key=True, index=True),
    Column("at", Time, nullable=False),
)

exports = Table(
    "exports",
    metadata,
    Column("path", Text, primary_key=True),
    Column("model", String(63), nullable=False),
    Column("at", Time, nullable=False),
    Column("lines", Integer, nullable=False),
)

source_cursors = Table(
    "source_cursors",
    metadata,
    Column("model", String(63), primary_key=True),
    # Digest of the name: an address may be longer than any key.
    Column("source", String(64), primary_key=True),
    Column("name", Text, nullable=False),
    # How far it was read. Ledgers of names and digests, never texts.
    Column("cursor", JSON),
    Column("report", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("updated_at", Time, nullable=False),
)

privacy_charges = Table(
    "privacy_charges",
    metadata,
    # Append-only: what is spent is spent, whatever became of the run.
    Column("id", String(64), primary_key=True),
    Column("model", String(63), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("at", Time, nullable=False),
    Column("record", JSON, nullable=False),
    UniqueConstraint("model", "number"),
)
