"""The ids by which imported rows can be erased."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "dataset_import_texts",
        sa.Column("text_id", sa.String(64), primary_key=True),
        sa.Column(
            "name", sa.String(64), sa.ForeignKey("dataset_imports.name", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("part", sa.Integer, nullable=False),
    )
