"""Datasets and their documents, and what adapters were trained on, in tables that lineage joins."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0320"
down_revision = "0020"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "datasets",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("left_out", JSONB, nullable=False),
        sa.Column("train_tokens", sa.BigInteger, nullable=False),
        sa.Column("held_out_tokens", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "dataset_documents",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True, index=True),
    )
    op.create_table(
        "adapters",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("dataset_digest", sa.String(64), nullable=False, index=True),
        sa.Column("parent_digest", sa.String(64), nullable=False, index=True),
    )
