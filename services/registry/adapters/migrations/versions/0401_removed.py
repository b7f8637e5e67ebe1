"""The characters that ingestion left out of a document's file, by kind."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0401"
down_revision = "0400"


def upgrade() -> None:
    """Add the column."""
    op.add_column("documents", sa.Column("removed", JSONB, nullable=False, server_default="{}"))
