"""Drafts that experts edited."""

import sqlalchemy as sa
from alembic import op

revision = "0391"
down_revision = "0389"


def upgrade() -> None:
    """Add the column."""
    op.add_column("drafts", sa.Column("edit_of", sa.String(64), nullable=False, server_default=""))
