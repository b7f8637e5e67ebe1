"""Deleted specialists, approvals, operators' decisions, and pins of leaderboards."""

import sqlalchemy as sa
from alembic import op

revision = "0344"
down_revision = "0342"


def upgrade() -> None:
    """Add the column and the tables."""
    op.add_column("specialists", sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.alter_column("specialists", "deleted", server_default=None)
    op.create_table(
        "approvals",
        sa.Column("adapter_digest", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("position", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table(
        "operator_decisions",
        sa.Column("position", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("adapter_digest", sa.String(64), nullable=False, index=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("verdict_reasons", sa.JSON, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "pins",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("entry", sa.String(128), primary_key=True),
    )
