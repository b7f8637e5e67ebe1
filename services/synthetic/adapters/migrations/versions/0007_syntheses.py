"""Syntheses with their answers and rows. The answers of teachers that builds asked go."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Create three tables."""
    _syntheses()
    _answers()
    _rows()


def _syntheses() -> None:
    op.create_table(
        "syntheses",
        sa.Column("synthesis_id", sa.String(40), primary_key=True),
        sa.Column("request_id", sa.String(128), unique=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("spec", JSONB, nullable=False),
        sa.Column("teacher", sa.String(256), nullable=False),
        sa.Column("judge", sa.String(256), nullable=False),
        sa.Column("prompt_version", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("use", JSONB, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("resume_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
    )


def _synthesis_id() -> "sa.Column[str]":
    key = sa.ForeignKey("syntheses.synthesis_id", ondelete="CASCADE")
    return sa.Column("synthesis_id", sa.String(40), key, primary_key=True)


def _answers() -> None:
    op.create_table(
        "synthesis_answers",
        _synthesis_id(),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("step", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("finish_reason", sa.String(32), nullable=False),
        sa.Column("refused", sa.Boolean, nullable=False),
        sa.Column("checked", sa.Boolean, nullable=False, server_default="false"),
        sa.Column("document_ids", ARRAY(sa.String(64)), nullable=False),
    )
    op.create_index("ix_synthesis_answers_document_ids", "synthesis_answers", ["document_ids"], postgresql_using="gin")


def _rows() -> None:
    op.create_table(
        "synthesis_rows",
        _synthesis_id(),
        sa.Column("row_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64), nullable=False),
        sa.Column("row", JSONB, nullable=False),
        sa.Column("document_ids", ARRAY(sa.String(64)), nullable=False),
        sa.Column("mark", sa.Integer, nullable=False),
        sa.Column("back_translation", sa.Float),
        sa.Column("reviewer", sa.String(128), nullable=False),
        sa.Column("reviewed_at", sa.DateTime(timezone=True)),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
    )
    op.create_index("ix_synthesis_rows_specialist", "synthesis_rows", ["specialist", "state", "row_id"])
    op.create_index("ix_synthesis_rows_document_ids", "synthesis_rows", ["document_ids"], postgresql_using="gin")
