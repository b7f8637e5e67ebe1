"""The datasets of both kinds that an adapter learned from."""

import sqlalchemy as sa
from alembic import op

revision = "0381"
down_revision = "0343"

RANKED = """
    UPDATE adapters SET preference_dataset = dataset_digest
    WHERE dataset_digest IN (SELECT digest FROM datasets WHERE ranked_for <> '')
"""


def upgrade() -> None:
    """Add the columns. For adapters of earlier releases, the dataset and the parents say the rest."""
    for name in ("sft_dataset", "preference_dataset"):
        op.add_column("adapters", sa.Column(name, sa.String(64), nullable=False, server_default=""))
    op.execute(RANKED)
