"""Prompts of rows that were drawn for experts, and the documents behind the drafts that answer them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0398"
down_revision = "0397"


def upgrade() -> None:
    """Add the column, the table and their indexes."""
    op.add_column("drafts", sa.Column("drawn_from", ARRAY(sa.String(64)), nullable=False, server_default="{}"))
    op.create_index("ix_drafts_drawn_from", "drafts", ["drawn_from"], postgresql_using="gin")
    op.create_table(
        "drawn_prompts",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("prompt_digest", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("document_ids", ARRAY(sa.String(64)), nullable=False),
        sa.Column("drawn_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("clock_timestamp()")),
    )
    op.create_index("ix_drawn_prompts_document_ids", "drawn_prompts", ["document_ids"], postgresql_using="gin")
