"""What retention goes by and what it must not take: when an incident was closed, when somebody was first seen.

An incident that was closed before counts as closed now: nobody knows when it was, and it may have been today.
And which released rows were left out again: from here on those whose retrain is named.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("incidents", sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True))
    incidents = sa.table(
        "incidents", sa.column("status", sa.String), sa.column("closed_at", sa.DateTime(timezone=True))
    )
    op.execute(incidents.update().where(incidents.c.status != "open").values(closed_at=datetime.now(UTC)))
    op.create_table(
        "first_seen",
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model", "pseudonym", name=op.f("pk_first_seen")),
    )
    op.create_index(op.f("ix_first_seen_pseudonym"), "first_seen", ["pseudonym"], unique=False)
    op.execute("UPDATE quarantine SET request_id = NULL WHERE status = 'released'")


def downgrade() -> None:
    op.drop_table("first_seen")
    op.drop_column("incidents", "closed_at")
