"""How often each surrogate stands in each document, and what data protection decided about it."""

import sqlalchemy as sa
from alembic import op

revision = "0410"
down_revision = "0174"


def upgrade() -> None:
    """Create the tables. Replacements of documents that passed before are not known; a replay counts them."""
    op.add_column("review_documents", sa.Column("department", sa.String(64), nullable=False, server_default=""))
    op.add_column("review_documents", sa.Column("words", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "review_replaced",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("entity_type", sa.String(40), primary_key=True),
        sa.Column("surrogate", sa.Text, primary_key=True),
        sa.Column("times", sa.Integer, nullable=False),
    )
    op.create_index("review_replaced_string", "review_replaced", ["entity_type", sa.text("lower(surrogate)")])
    op.create_table(
        "review_replaced_decisions",
        sa.Column("entity_type", sa.String(40), primary_key=True),
        sa.Column("surrogate", sa.Text, primary_key=True),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("decided_by", sa.String(128), nullable=False),
        sa.Column("decide_time", sa.DateTime(timezone=True), nullable=False),
    )
