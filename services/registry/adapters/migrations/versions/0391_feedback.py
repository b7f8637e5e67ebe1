"""Callers' feedback on drafts."""

import sqlalchemy as sa
from alembic import op

revision = "0391"
down_revision = "0381"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "feedback",
        sa.Column("feedback_id", sa.String(64), primary_key=True),
        sa.Column("draft_id", sa.String(64), nullable=False),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("edited_text", sa.Text(), nullable=False),
        sa.Column("stars", sa.Integer(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("position", sa.BigInteger(), sa.Identity(), nullable=False, index=True),
    )
