"""How often work on a version began without an end, so that a document that ends the service is rejected."""

import sqlalchemy as sa
from alembic import op

revision = "0420"
down_revision = "0410"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "starts",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("starts", sa.Integer, nullable=False),
    )
