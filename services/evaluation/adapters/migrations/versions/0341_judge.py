"""Which datasets rank whose drafts, the judge models' agreement with experts, and what was measured since when.

Datasets that were announced before have no specialist: the agreement is unknown until the next dataset of ranked drafts.
"""

import sqlalchemy as sa
from alembic import op

revision = "0341"
down_revision = "0340"


def upgrade() -> None:
    """Add columns and tables."""
    now = sa.func.clock_timestamp()
    op.add_column("datasets", sa.Column("ranked_for", sa.String(63), nullable=False, server_default=""))
    op.add_column("datasets", sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=now))
    op.create_table(
        "agreements",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("kappa", sa.Float),
        sa.Column("pairs", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
    )
    op.create_table(
        "definitions",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False, server_default=now),
    )
