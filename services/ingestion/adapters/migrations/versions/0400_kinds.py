"""The kind of each document, whose id belongs to the topic of that kind."""

import sqlalchemy as sa
from alembic import op

revision = "0400"
down_revision = "0171"


def upgrade() -> None:
    """Add the column. The kind of what is there is not checked until its next version."""
    op.add_column("documents", sa.Column("kind", sa.String(16), nullable=False, server_default=""))
