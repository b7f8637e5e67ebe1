"""Training's first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy import MetaData

from tailor.events.outbox import outbox_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "runs",
        sa.Column("run_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("dataset_digest", sa.String(64), nullable=False),
        sa.Column("base", sa.String(63), nullable=False),
        sa.Column("recipe_digest", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, index=True),
        sa.Column("body", sa.JSON, nullable=False),
        sa.UniqueConstraint("specialist", "dataset_digest", "base", "recipe_digest", name="one_run_per_key"),
    )
    op.create_table(
        "reports",
        sa.Column("position", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column(
            "run_id", sa.String(64), sa.ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("body", sa.JSON, nullable=False),
    )
    outbox_table(MetaData()).create(op.get_bind())
