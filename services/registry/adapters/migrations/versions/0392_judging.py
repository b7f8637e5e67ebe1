"""Drafts that experts can judge, and what each expert decided about their prompts."""

import sqlalchemy as sa
from alembic import op

revision = "0392"
down_revision = "0391"


def upgrade() -> None:
    """Add the tables. Drafts and judgements from before are not in them."""
    op.create_table(
        "stored_drafts",
        sa.Column("draft_id", sa.String(64), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("prompt_digest", sa.String(64), nullable=False),
        sa.Column("answer_digest", sa.String(64), nullable=False),
        sa.Column("is_callers", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_stored_drafts_specialist_create_time", "stored_drafts", ["specialist", "create_time"])
    op.create_table(
        "expert_decisions",
        sa.Column("position", sa.BigInteger(), sa.Identity(), primary_key=True),
        sa.Column("expert_id", sa.String(64), nullable=False),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("prompt_digest", sa.String(64), nullable=False),
        sa.Column("judgement_id", sa.String(64), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint("expert_id", "specialist", "prompt_digest", "judgement_id"),
    )
    op.create_index("ix_expert_decisions_specialist_create_time", "expert_decisions", ["specialist", "create_time"])
