"""Scores of documents in the quiz, and the counts of each dataset's quiz."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0330"
down_revision = "0320"


def upgrade() -> None:
    """Add the table and the column."""
    op.create_table(
        "document_scores",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True, index=True),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("learned", sa.Integer, nullable=False),
        sa.Column("missed", sa.Integer, nullable=False),
        sa.Column("contradicted", sa.Integer, nullable=False),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("evaluate_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.add_column("datasets", sa.Column("quiz", JSONB, nullable=False, server_default="{}"))
    op.alter_column("datasets", "quiz", server_default=None)
