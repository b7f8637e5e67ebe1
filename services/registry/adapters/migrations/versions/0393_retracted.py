"""Judgements that their experts took back."""

import sqlalchemy as sa
from alembic import op

revision = "0393"
down_revision = "0392"


def upgrade() -> None:
    """Add the column, and the index of an expert's decisions."""
    op.add_column("judgements", sa.Column("retracted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("ix_expert_decisions_expert_position", "expert_decisions", ["expert_id", "specialist", "position"])
