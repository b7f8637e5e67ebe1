"""The language of documents, counts of what filters removed, and sketches for near-duplicates."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("documents", sa.Column("language", sa.String(16), nullable=False, server_default=""))
    op.add_column("datasets", sa.Column("left_out", JSONB, nullable=False, server_default="{}"))
    op.create_table(
        "sketches",
        sa.Column(
            "document_id", sa.String(64), sa.ForeignKey("documents.document_id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("text_sha256", sa.String(64), nullable=False),
        sa.Column("minhash", sa.LargeBinary, nullable=False),
        sa.Column("bands", ARRAY(sa.BigInteger), nullable=False),
    )
