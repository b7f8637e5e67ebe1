"""Room for the state `awaiting_approval`."""

import sqlalchemy as sa
from alembic import op

revision = "0410"
down_revision = "0381"


def upgrade() -> None:
    """Widen the column."""
    op.alter_column("runs", "state", type_=sa.String(32), existing_type=sa.String(16), existing_nullable=False)
