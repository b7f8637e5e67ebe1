"""What serving, storage and experts' time used."""

import sqlalchemy as sa
from alembic import op

revision = "0398"
down_revision = "0396"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "serving_uses",
        sa.Column("draft_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("device", sa.String(128), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_serving_uses_specialist_create_time", "serving_uses", ["specialist", "create_time"])
    op.create_table(
        "stored_files",
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("sha256", sa.String(64), primary_key=True, index=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("delete_time", sa.DateTime(timezone=True), nullable=True),
    )
    op.create_table(
        "judging_times",
        sa.Column("judgement_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("seconds", sa.Float(), nullable=False),
    )
