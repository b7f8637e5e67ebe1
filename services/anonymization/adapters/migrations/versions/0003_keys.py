"""The key of each entry, the vault's secrets, and an index for surrogates in any capitals."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the key's column, the index and the table of secrets."""
    op.add_column("entries", sa.Column("key_id", sa.String(16), nullable=False, server_default=""))
    op.create_index("entries_key", "entries", ["key_id"])
    op.create_index("entries_surrogate_folded", "entries", ["entity_type", sa.text("lower(surrogate)")])
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    )
