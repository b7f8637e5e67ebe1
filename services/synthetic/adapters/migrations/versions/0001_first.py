"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from tailor.events.outbox import outbox_table

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.execute("CREATE SEQUENCE item_positions")
    _documents()
    _judgements()
    _datasets()
    op.create_table(
        "lessons",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("pairs", JSONB, nullable=False),
        sa.Column("tokens", sa.Integer, nullable=False),
    )
    outbox_table(sa.MetaData()).create(op.get_bind())


def _documents() -> None:
    op.create_table(
        "documents",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("department", sa.String(64), nullable=False),
        sa.Column("confidentiality", sa.String(64), nullable=False),
        sa.Column("text_uri", sa.String(512), nullable=False),
        sa.Column("text_sha256", sa.String(64), nullable=False),
        sa.Column("text_size_bytes", sa.BigInteger, nullable=False),
        sa.Column("draft_id", sa.String(64), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False, index=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    op.create_table(
        "clusters",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("cluster_id", sa.String(64), nullable=False, index=True),
        sa.Column("held_out", sa.Boolean, nullable=False),
    )


def _judgements() -> None:
    op.create_table(
        "judgements",
        sa.Column("judgement_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("ranking", JSONB, nullable=False),
        sa.Column("rubric", JSONB, nullable=False),
        sa.Column("comment", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("near_duplicates", sa.Integer, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "builds",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("filled_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("built_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tried_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""),
        sa.Column("digest", sa.String(64), nullable=False, server_default=""),
        sa.Column("built_at", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created", sa.Boolean, nullable=False),
    )
