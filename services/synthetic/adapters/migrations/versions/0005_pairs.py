"""Drafts whose texts are stored, and a newest dataset for each kind."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the table, and add columns and indexes to existing tables."""
    op.create_table(
        "drafts",
        sa.Column("draft_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("prompt_digest", sa.String(64), nullable=False),
        sa.Column("adapter_digest", sa.String(64), nullable=False),
        sa.Column("text_uri", sa.String(512), nullable=False),
        sa.Column("text_sha256", sa.String(64), nullable=False),
        sa.Column("text_size_bytes", sa.BigInteger, nullable=False),
        sa.Column("saved", sa.Boolean, nullable=False),
        sa.Column(
            "kept_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.clock_timestamp(),
            index=True,
        ),
    )
    op.create_index("ix_judgements_ranking", "judgements", ["ranking"], postgresql_using="gin")
    op.create_index("ix_documents_draft_id", "documents", ["draft_id"])
    op.add_column("datasets", sa.Column("pairs", JSONB, nullable=False, server_default="{}"))
    op.add_column("builds", sa.Column("kind", sa.String(16), nullable=False, server_default="sft"))
    op.drop_constraint("builds_pkey", "builds")
    op.create_primary_key("builds_pkey", "builds", ["specialist", "kind"])
