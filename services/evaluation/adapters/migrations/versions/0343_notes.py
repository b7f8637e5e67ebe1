"""Notes on the prompts of a model's result."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0343"
down_revision = "0341"


def upgrade() -> None:
    """Change the tables."""
    op.add_column("results", sa.Column("notes", JSONB, nullable=False, server_default="{}"))
    op.alter_column("results", "notes", server_default=None)
