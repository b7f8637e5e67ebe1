"""Columns that publishers ask for: ids, keys, and later rejections."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("submissions", sa.Column("external_hash", sa.String(64)))
    op.create_index("ix_submissions_external_hash", "submissions", ["external_hash"])
    op.add_column("submissions", sa.Column("publisher", sa.String(64), nullable=False, server_default=""))
    op.add_column("submissions", sa.Column("later_reason", sa.String(64), nullable=False, server_default=""))
    op.add_column("submissions", sa.Column("later_hint", sa.Text, nullable=False, server_default=""))
