"""The documents of the row whose prompt was drawn for experts, so that an erasure finds the draft."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0400"
down_revision = "0398"


def upgrade() -> None:
    """Add the column and its index."""
    op.add_column("stored_drafts", sa.Column("drawn_from", ARRAY(sa.String(64)), nullable=False, server_default="{}"))
    op.create_index("ix_stored_drafts_drawn_from", "stored_drafts", ["drawn_from"], postgresql_using="gin")
