"""Places of ranked drafts, which equally good ones share."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0397"
down_revision = "0391"


def upgrade() -> None:
    """Add the column."""
    op.add_column("judgements", sa.Column("places", JSONB, nullable=False, server_default=sa.text("'[]'::jsonb")))
