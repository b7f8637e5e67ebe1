"""Canaries, and the calls of both arms while they run."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0018"


def upgrade() -> None:
    """Add the tables; at most one canary is running per specialist."""
    op.create_table(
        "canaries",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("generation", sa.BigInteger, primary_key=True),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("rules", sa.JSON, nullable=False),
        sa.Column("start_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.Column("arms", sa.JSON, nullable=False),
        sa.Column("waiting", sa.String(64), nullable=False),
    )
    op.create_index(
        "canaries_running", "canaries", ["specialist"], unique=True, postgresql_where=sa.text("outcome = 'running'")
    )
    op.create_table(
        "canary_calls",
        sa.Column("draft_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("canary", sa.Boolean, nullable=False),
        sa.Column("failed", sa.Boolean, nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("first_token_seconds", sa.Float),
        sa.Column("token_seconds", sa.Float),
    )
