"""Who created each API key."""

import sqlalchemy as sa
from alembic import op

revision = "0361"
down_revision = "0344"


def upgrade() -> None:
    """Add the column; who created the keys so far is not known."""
    op.add_column("keys", sa.Column("created_by", sa.String(64), nullable=False, server_default=""))
    op.alter_column("keys", "created_by", server_default=None)
