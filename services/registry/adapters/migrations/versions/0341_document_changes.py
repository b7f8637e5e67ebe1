"""The transaction that wrote each document, so that changes can be listed."""

import sqlalchemy as sa
from alembic import op

revision = "0341"
down_revision = "0340"


def upgrade() -> None:
    """Add the column with its index."""
    op.add_column("documents", sa.Column("changed", sa.BigInteger, nullable=False, server_default="0"))
    op.alter_column("documents", "changed", server_default=None)
    op.create_index("ix_documents_changed", "documents", ["changed"])
