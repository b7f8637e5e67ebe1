"""Which key an entry is encrypted under, the vault's own secrets, and surrogates found in any capitals."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Mark entries, and add the table of secrets."""
    op.add_column("entries", sa.Column("key_id", sa.String(16), nullable=False, server_default=""))
    op.create_index("entries_key", "entries", ["key_id"])
    op.create_index("entries_surrogate_folded", "entries", ["entity_type", sa.text("lower(surrogate)")])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    )
