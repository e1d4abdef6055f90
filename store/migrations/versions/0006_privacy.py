"""What private training runs took from a model's budget of epsilon."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "privacy_charges",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_privacy_charges")),
        sa.UniqueConstraint("model", "number", name=op.f("uq_privacy_charges_model")),
    )
    op.create_index(op.f("ix_privacy_charges_model"), "privacy_charges", ["model"], unique=False)


def downgrade() -> None:
    op.drop_table("privacy_charges")
