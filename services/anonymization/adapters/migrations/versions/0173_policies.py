"""The policies that are and were in force, and which versions share a corpus text."""

import sqlalchemy as sa
from alembic import op

revision = "0173"
down_revision = "0172"


def upgrade() -> None:
    """Create the table and the index."""
    op.create_table(
        "policies",
        sa.Column("generation", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("policy_digest", sa.String(64), nullable=False),
        sa.Column("detectors_digest", sa.String(64), nullable=False),
        sa.Column("file_digest", sa.String(64), nullable=False),
        sa.Column("installed_by", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_processed_text", "processed", [sa.text("((outcome::jsonb #>> '{text,uri}'))")])
