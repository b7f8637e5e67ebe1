"""The languages in which a document was masked by rules only."""

import sqlalchemy as sa
from alembic import op

revision = "0174"
down_revision = "0173"


def upgrade() -> None:
    """Add the column. Documents that passed before were read by the detectors of one language."""
    op.add_column("review_documents", sa.Column("rules_only_languages", sa.Text, nullable=False, server_default=""))
