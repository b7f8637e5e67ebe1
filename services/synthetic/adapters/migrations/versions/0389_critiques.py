"""Comments on drafts of which none is better, and rows that answer a comment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0389"
down_revision = "0174"


def upgrade() -> None:
    """Add the columns, and the indexes by which comments, drafts and answered comments are found."""
    empty = sa.text("'[]'::jsonb")
    op.add_column("judgements", sa.Column("equal_drafts", JSONB, nullable=False, server_default=empty))
    op.create_index("ix_judgements_equal_drafts", "judgements", ["equal_drafts"], postgresql_using="gin")
    is_commented = sa.text("comment <> ''")
    op.create_index("ix_judgements_commented", "judgements", ["specialist", "position"], postgresql_where=is_commented)
    op.add_column("synthesis_rows", sa.Column("judgement_id", sa.String(64), nullable=False, server_default=""))
    answers = sa.text("judgement_id <> ''")
    op.create_index(
        "ix_synthesis_rows_judgement_id", "synthesis_rows", ["judgement_id"], unique=True, postgresql_where=answers
    )
