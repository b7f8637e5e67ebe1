"""Methods and rate of keys; inference replicas."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("keys", sa.Column("methods", sa.JSON, nullable=False, server_default="[]"))
    op.add_column("keys", sa.Column("calls_per_minute", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "replicas",
        sa.Column("replica", sa.String(253), primary_key=True),
        sa.Column("base", sa.String(128), nullable=False, index=True),
        sa.Column("seen_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leaving", sa.Boolean, nullable=False),
    )
