"""The review queue, and the root cause of an incident."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "review_items",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("guideline", sa.String(length=32), nullable=False),
        sa.Column("labels_wanted", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=96), nullable=False),
        sa.Column("gold_expected", sa.JSON(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("created_at", Time, nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_items")),
        sa.UniqueConstraint("kind", "subject", name=op.f("uq_review_items_kind")),
    )
    op.create_index("ix_review_items_model_status", "review_items", ["model", "status", "priority"], unique=False)
    op.create_table(
        "review_links",
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("value", sa.String(length=128), nullable=False),
        sa.PrimaryKeyConstraint("item", "kind", "value", name=op.f("pk_review_links")),
    )
    op.create_index(op.f("ix_review_links_value"), "review_links", ["value"], unique=False)
    op.create_table(
        "review_leases",
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("labeller", sa.String(length=128), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("until", Time, nullable=False),
        sa.PrimaryKeyConstraint("item", name=op.f("pk_review_leases")),
    )
    op.create_index(op.f("ix_review_leases_labeller"), "review_leases", ["labeller"], unique=False)
    op.create_table(
        "review_labels",
        sa.Column("item", sa.String(length=24), nullable=False),
        sa.Column("labeller", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=12), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("root_cause", sa.String(length=64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.PrimaryKeyConstraint("item", "labeller", name=op.f("pk_review_labels")),
    )
    op.create_index(op.f("ix_review_labels_labeller"), "review_labels", ["labeller"], unique=False)
    op.create_table(
        "review_feeds",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("sampled_upto", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", Time, nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_review_feeds")),
    )
    op.add_column(
        "incidents", sa.Column("root_cause", sa.String(length=64), nullable=False, server_default=sa.text("''"))
    )
    op.create_index("ix_quarantine_model_status", "quarantine", ["model", "status", "reason"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("the review queue holds people's labels: restore a backup from before the upgrade")
