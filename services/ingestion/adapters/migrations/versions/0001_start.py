"""Documents, submissions and the outbox."""

import sqlalchemy as sa
from alembic import op

from tailor.events.outbox import outbox_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    now = sa.func.now()
    op.create_table(
        "documents",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("external_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("external_id", sa.Text, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False, server_default=""),
        sa.Column("digest", sa.String(64), unique=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
    op.create_table(
        "submissions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("submission_id", sa.String(64), nullable=False),
        sa.Column("document_id", sa.String(64), nullable=False, index=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
    outbox_table(sa.MetaData()).create(op.get_bind())
