"""Documents that a replay superseded, and the datasets with rows of their earlier versions."""

import sqlalchemy as sa
from alembic import op

revision = "0371"
down_revision = "0361"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("erased_documents", sa.Column("superseded", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "superseded_datasets",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("erasure_id", sa.String(64), nullable=False),
    )
