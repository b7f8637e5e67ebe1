"""The imports and languages of datasets, and the teacher tokens behind them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0340"
down_revision = "0330"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("datasets", sa.Column("imports", JSONB, nullable=False, server_default="[]"))
    op.add_column("datasets", sa.Column("languages", JSONB, nullable=False, server_default="{}"))
    op.add_column("datasets", sa.Column("teacher_tokens", sa.BigInteger, nullable=False, server_default="0"))
