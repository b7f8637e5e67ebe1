"""Which documents are erased."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("documents", sa.Column("erasure_id", sa.String(64), nullable=False, server_default=""))
