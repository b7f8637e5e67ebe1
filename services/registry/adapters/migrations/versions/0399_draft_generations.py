"""Which adapter wrote a stored draft, and with which generation. Drafts from before have neither and count for no canary."""

import sqlalchemy as sa
from alembic import op

revision = "0399"
down_revision = "0398"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("stored_drafts", sa.Column("generation", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("stored_drafts", sa.Column("adapter_digest", sa.String(64), nullable=False, server_default=""))
