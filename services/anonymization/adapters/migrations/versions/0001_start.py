"""The vault's entries, the ledger of versions and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    now = sa.func.now()
    op.create_table(
        "entries",
        sa.Column("entity_type", sa.String(40), primary_key=True),
        sa.Column("value_hash", sa.String(64), primary_key=True),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
        sa.Column("surrogate", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=now),
        sa.UniqueConstraint("entity_type", "surrogate", name="entries_surrogate"),
    )
    op.create_table(
        "processed",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, primary_key=True),
        sa.Column("outcome", sa.Text, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("caller", sa.String(128), nullable=False),
        sa.Column("entity_type", sa.String(40), nullable=False),
        sa.Column("surrogate", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
