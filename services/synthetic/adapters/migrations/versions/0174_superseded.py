"""Versions of documents whose datasets are still to be superseded."""

import sqlalchemy as sa
from alembic import op

revision = "0174"
down_revision = "0010"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "superseded",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("segment", sa.Integer),
        sa.Column(
            "kept_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp(), index=True
        ),
    )
