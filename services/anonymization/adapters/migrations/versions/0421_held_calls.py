"""Re-identifications are not held for a second person (decision 68)."""

from alembic import op

revision = "0421"
down_revision = "0420"


def upgrade() -> None:
    """Drop the table, which only some installations have: no migration created it."""
    op.execute("DROP TABLE IF EXISTS held_calls")
