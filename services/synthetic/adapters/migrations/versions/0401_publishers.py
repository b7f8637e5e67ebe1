"""Who published a document."""

import sqlalchemy as sa
from alembic import op

revision = "0401"
down_revision = "0398"


def upgrade() -> None:
    """Add the label to documents and to the labels that they have. Nobody knows who published earlier ones."""
    for table in ("documents", "newest_labels"):
        op.add_column(table, sa.Column("publisher", sa.String(64), nullable=False, server_default=""))
    op.drop_constraint("newest_labels_pkey", "newest_labels")
    labels = ["source", "department", "confidentiality", "publisher"]
    op.create_primary_key("newest_labels_pkey", "newest_labels", labels)
    op.drop_index("ix_documents_labels", "documents")
    op.create_index("ix_documents_labels", "documents", [*labels, "position"])
