"""Under which barrier a version passed, where it was fetched from, and replays."""

import sqlalchemy as sa
from alembic import op

revision = "0171"
down_revision = "0018"


def upgrade() -> None:
    """Add the columns and the tables. What is there passed under a policy and detectors that nobody recorded."""
    op.add_column("documents", sa.Column("barrier", sa.String(64), nullable=False, server_default="unknown"))
    op.alter_column("documents", "barrier", server_default="")
    op.add_column("documents", sa.Column("reference", sa.LargeBinary, nullable=False, server_default=""))
    op.create_table(
        "replays",
        sa.Column("replay_id", sa.String(64), primary_key=True),
        sa.Column("position", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("barrier", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requested_by", sa.String(128), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_time", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "replay_documents",
        sa.Column("replay_id", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True, index=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False, server_default=""),
    )
    op.create_index("ix_replay_documents_outcome", "replay_documents", ["replay_id", "outcome", "number"])
