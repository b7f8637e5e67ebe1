"""The spans of documents. Earlier documents have none."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("documents", sa.Column("spans", JSONB, nullable=False, server_default="[]"))
