"""Reward adapters and merged adapters that an adapter came from, and the adapters whose drafts a dataset has."""

import sqlalchemy as sa
from alembic import op

revision = "0381"
down_revision = "0371"

COLUMNS = ("reward_digest", "base_adapter_digest")


def upgrade() -> None:
    """Add the columns and the table. Adapters of earlier releases have neither; datasets name no drafts' adapters."""
    for name in COLUMNS:
        op.add_column("adapters", sa.Column(name, sa.String(64), nullable=False, server_default=""))
        op.create_index(f"ix_adapters_{name}", "adapters", [name])
    op.create_table(
        "dataset_adapters",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("adapter_digest", sa.String(64), primary_key=True, index=True),
    )
