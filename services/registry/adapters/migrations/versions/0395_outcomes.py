"""What drafts were worth."""

import sqlalchemy as sa
from alembic import op

revision = "0395"
down_revision = "0393"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "outcomes",
        sa.Column("outcome_id", sa.String(64), primary_key=True),
        sa.Column("draft_id", sa.String(64), nullable=False, index=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("minutes", sa.Float(), nullable=False),
        sa.Column("satisfaction", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "final_texts",
        sa.Column("draft_id", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(64), nullable=False, index=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("share", sa.Float(), nullable=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
