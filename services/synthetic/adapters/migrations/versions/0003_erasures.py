"""The document of a teacher's answer. Earlier answers have none, and are deleted."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Empty the table and add the column."""
    op.execute("DELETE FROM lessons")
    op.add_column("lessons", sa.Column("document_id", sa.String(64), nullable=False, index=True))
