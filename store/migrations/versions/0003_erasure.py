"""Erasures, what was erased, and the versions it taught."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("pseudonym", sa.String(length=64), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("requested_at", Time, nullable=False),
        sa.Column("deadline", Time, nullable=False),
        sa.Column("ended_at", Time, nullable=True),
        sa.Column("upto_seq", sa.BigInteger(), nullable=False),
        sa.Column("places", sa.JSON(), nullable=False),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_pseudonym"), "erasures", ["pseudonym"], unique=False)
    op.create_index(
        "uq_erasures_open_person",
        "erasures",
        ["pseudonym"],
        unique=True,
        sqlite_where=sa.text("open = 1"),
        postgresql_where=sa.text("open"),
    )
    op.create_table(
        "erased",
        sa.Column("id", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("erasure", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erased")),
    )
    op.create_index(op.f("ix_erased_erasure"), "erased", ["erasure"], unique=False)
    op.create_table(
        "tainted_versions",
        sa.Column("version", sa.String(length=96), nullable=False),
        sa.Column("erasure", sa.String(length=36), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("deadline", Time, nullable=False),
        sa.PrimaryKeyConstraint("version", "erasure", name=op.f("pk_tainted_versions")),
    )
    op.create_table(
        "salts",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_salts")),
    )
    op.create_table(
        "exports",
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("model", sa.String(length=63), nullable=False),
        sa.Column("at", Time, nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("path", name=op.f("pk_exports")),
    )
    # 0 where rows were deleted before deleted bytes were overwritten: the first erasure then rewrites the SQLite file.
    op.execute(
        "INSERT INTO counters (name, value) SELECT 'scrubbed', CASE WHEN EXISTS (SELECT 1 FROM interactions) "
        "THEN 0 ELSE 1 END"
    )


def downgrade() -> None:
    raise NotImplementedError("what was erased must stay known: restore a backup from before the upgrade")
