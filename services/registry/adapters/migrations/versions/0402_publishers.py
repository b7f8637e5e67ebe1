"""Who published a document."""

import sqlalchemy as sa
from alembic import op

revision = "0402"
down_revision = "0401"


def upgrade() -> None:
    """Add the columns. Nobody knows who published earlier documents."""
    for table in ("documents", "submissions"):
        op.add_column(table, sa.Column("publisher", sa.String(64), nullable=False, server_default=""))
