"""How far the registry's documents were read for each specialist."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column."""
    op.add_column("builds", sa.Column("filled_cursor", sa.BigInteger, nullable=False, server_default="0"))
