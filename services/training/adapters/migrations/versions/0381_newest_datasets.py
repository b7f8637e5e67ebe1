"""The newest dataset of each kind, by specialist."""

import sqlalchemy as sa
from alembic import op

revision = "0381"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "newest_datasets",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("uri", sa.String(512), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
    )
