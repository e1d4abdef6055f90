"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)


def _traffic() -> None:
    op.create_table(
        "interactions",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("conversation", sa.String(length=128), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("prompt_version", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=96), nullable=False),
        sa.Column("rollout_id", sa.String(length=36), nullable=True),
        sa.Column("route_revision", sa.Integer(), nullable=False),
        sa.Column("arm_share", sa.Float(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=False),
        sa.Column("tokens_out", sa.Integer(), nullable=False),
        sa.Column("latency_ms", sa.Integer(), nullable=False),
        sa.Column("ttft_ms", sa.Integer(), nullable=False),
        sa.Column("cost_microdollars", sa.BigInteger(), nullable=False),
        sa.Column("flags", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interactions")),
        sa.UniqueConstraint("seq", name=op.f("uq_interactions_seq")),
    )
    op.create_index("ix_interactions_model_seq", "interactions", ["model", "seq"], unique=False)
    op.create_index(op.f("ix_interactions_principal"), "interactions", ["principal"], unique=False)
    op.create_index("ix_interactions_rollout_seq", "interactions", ["rollout_id", "seq"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("interaction_id", sa.String(length=80), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("source", sa.String(length=32), nullable=False),
        sa.Column("thumb", sa.Integer(), nullable=True),
        sa.Column("rating", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("rejected", sa.Text(), nullable=True),
        sa.Column("label", sa.String(length=128), nullable=True),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
        sa.UniqueConstraint("seq", name=op.f("uq_feedback_seq")),
    )
    op.create_index(op.f("ix_feedback_interaction_id"), "feedback", ["interaction_id"], unique=False)
    op.create_index("ix_feedback_model_seq", "feedback", ["model", "seq"], unique=False)
    op.create_index(op.f("ix_feedback_principal"), "feedback", ["principal"], unique=False)


def _teaching() -> None:
    op.create_table(
        "incidents",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("interaction_id", sa.String(length=80), nullable=True),
        sa.Column("title", sa.String(length=256), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("messages", sa.JSON(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("required", sa.Text(), nullable=False),
        sa.Column("paraphrases", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("opened_at", Time, nullable=False),
        sa.Column("opened_by", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_index(op.f("ix_incidents_model"), "incidents", ["model"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("row_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=96), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=True),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("row_id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_model"), "quarantine", ["model"], unique=False)
    op.create_table(
        "snapshots",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_snapshots")),
    )
    op.create_index(op.f("ix_snapshots_model"), "snapshots", ["model"], unique=False)
    op.create_table(
        "snapshot_rows",
        sa.Column("snapshot", sa.String(length=64), nullable=False),
        sa.Column("row_id", sa.String(length=64), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("snapshot", "row_id", name=op.f("pk_snapshot_rows")),
    )
    op.create_index(op.f("ix_snapshot_rows_row_id"), "snapshot_rows", ["row_id"], unique=False)


def _retraining() -> None:
    op.create_table(
        "retrain_requests",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("causes", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("lease_until", Time, nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrain_requests")),
        sa.UniqueConstraint("model", "number", name=op.f("uq_retrain_requests_model")),
    )
    op.create_index(
        "uq_retrain_requests_one_open",
        "retrain_requests",
        ["model"],
        unique=True,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open"),
    )
    op.create_table(
        "steps",
        sa.Column("request_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("input_digest", sa.String(length=64), nullable=False),
        sa.Column("output", sa.JSON(), nullable=True),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("started_at", Time, nullable=False),
        sa.Column("ended_at", Time, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", "name", name=op.f("pk_steps")),
    )
    op.create_table(
        "versions",
        sa.Column("name", sa.String(length=96), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("adapter_digest", sa.String(length=64), nullable=False),
        sa.Column("dataset_digest", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("adapter_path", sa.Text(), nullable=False),
        sa.Column("approved_by", sa.String(length=128), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_versions")),
    )
    op.create_index(op.f("ix_versions_adapter_digest"), "versions", ["adapter_digest"], unique=False)
    op.create_index(op.f("ix_versions_dataset_digest"), "versions", ["dataset_digest"], unique=False)
    op.create_index(op.f("ix_versions_model"), "versions", ["model"], unique=False)


def _routing() -> None:
    op.create_table(
        "pointers",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_pointers")),
    )
    op.create_table(
        "route_revisions",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", "revision", name=op.f("pk_route_revisions")),
    )
    op.create_table(
        "gateways",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("loaded", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gateways")),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("request_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_request_id"), "rollouts", ["request_id"], unique=False)
    op.create_index(
        "uq_rollouts_one_open",
        "rollouts",
        ["model"],
        unique=True,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open"),
    )
    op.create_table(
        "rollout_evidence",
        sa.Column("rollout_id", sa.String(length=36), nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("principal", sa.String(length=128), nullable=False),
        sa.Column("arm", sa.String(length=16), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("q", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", "metric", "principal", name=op.f("pk_rollout_evidence")),
    )
    op.create_table(
        "rollout_state",
        sa.Column("rollout_id", sa.String(length=36), nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("history", sa.JSON(), nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_rollout_state")),
    )


def _watching() -> None:
    op.create_table(
        "drift_states",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("watermark", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_drift_states")),
    )
    op.create_table(
        "drift_findings",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("test", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_findings")),
    )
    op.create_index(op.f("ix_drift_findings_model"), "drift_findings", ["model"], unique=False)


def _bookkeeping() -> None:
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("token", sa.Integer(), nullable=False),
        sa.Column("until", Time, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("delivered_at", Time, nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sa.UniqueConstraint("key", name=op.f("uq_outbox_key")),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("actor", sa.String(length=128), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=160), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("previous", sa.String(length=64), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit")),
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('seq', 0), ('audit', 0)")


def upgrade() -> None:
    _traffic()
    _teaching()
    _retraining()
    _routing()
    _rollouts()
    _watching()
    _bookkeeping()


def downgrade() -> None:
    raise NotImplementedError("the first schema has nothing before it: restore a backup")
