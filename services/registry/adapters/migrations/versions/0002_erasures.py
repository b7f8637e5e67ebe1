"""Erasures, the services' answers, and tainted adapters."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("position", sa.BigInteger, sa.Identity(), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("awaits", sa.JSON, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("receipt", sa.Text),
        sa.Column("signature", sa.LargeBinary),
        sa.Column("public_key", sa.LargeBinary),
    )
    op.create_table(
        "erased_documents",
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True, index=True),
        sa.Column("lifted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "forgotten",
        sa.Column("erasure_id", sa.String(64), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("service", sa.String(64), primary_key=True),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("datasets", sa.JSON, nullable=False),
    )
    op.create_table(
        "taints",
        sa.Column("adapter_digest", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("erasure_id", sa.String(64), nullable=False, index=True),
        sa.Column("retired", sa.Boolean, nullable=False),
    )
