"""Surrogates by document, and suppressed values."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "occurrences",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("entity_type", sa.String(40), primary_key=True),
        sa.Column("surrogate", sa.Text, primary_key=True),
    )
    op.create_index("occurrences_surrogate", "occurrences", ["entity_type", "surrogate"])
    op.create_table(
        "suppressions",
        sa.Column("subject_hash", sa.String(64), primary_key=True),
        sa.Column("entity_type", sa.String(40), nullable=False),
        sa.Column("surrogate", sa.Text, nullable=False),
    )
