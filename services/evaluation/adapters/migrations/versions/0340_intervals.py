"""Answers with what they took, scores of rejected answers, and what adapters were trained on top of.

Stored results are deleted: they were made with parameters that are now the specialist's. An evaluation in progress asks again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0340"
down_revision = "0001"


def upgrade() -> None:
    """Change the tables."""
    op.execute(sa.text("DELETE FROM results"))
    op.alter_column("results", "model", type_=sa.String(200))
    op.add_column("results", sa.Column("rejected_scores", JSONB, nullable=False))
    op.add_column("adapters", sa.Column("parent_digest", sa.String(64), nullable=False, server_default=""))
