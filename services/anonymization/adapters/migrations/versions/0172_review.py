"""What reviews need: documents, samples, passages, marks, terms and combinations."""

import sqlalchemy as sa
from alembic import op

revision = "0172"
down_revision = "0003"

# Documents that passed before are sampled too. Their replaced values are not known.
FILL = """
INSERT INTO review_documents (document_id, sequence, source, language, passages)
SELECT DISTINCT ON (document_id) document_id, sequence, coalesce(outcome -> 'ingested' -> 'labels' ->> 0, ''),
    coalesce(outcome ->> 'language', ''), greatest(1, ceil((outcome ->> 'char_count')::numeric / 400))::integer
FROM (SELECT document_id, sequence, outcome::jsonb AS outcome FROM processed) AS versions
WHERE outcome ->> 'type' = 'Passed'
ORDER BY document_id, sequence DESC
"""


def upgrade() -> None:
    """Create the tables, and fill in the documents."""
    op.create_table(
        "review_documents",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("passages", sa.Integer, nullable=False),
        sa.Column("replaced", sa.Text),
        sa.Column("terms_digest", sa.String(64), nullable=False, server_default=""),
    )
    op.create_table(
        "review_samples",
        sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("sample_id", sa.String(64), nullable=False, unique=True),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )
    op.create_table(
        "review_strata",
        sa.Column("sample_id", sa.String(64), primary_key=True),
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("language", sa.String(8), primary_key=True),
        sa.Column("passages", sa.BigInteger, nullable=False),
        sa.Column("drawn", sa.Integer, nullable=False),
    )
    _create_passages()
    _create_terms()
    op.execute(FILL)


def _create_passages() -> None:
    op.create_table(
        "review_passages",
        sa.Column("passage_id", sa.String(64), primary_key=True),
        sa.Column("sample_id", sa.String(64), nullable=False, index=True),
        sa.Column("document_id", sa.String(64), nullable=False, index=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("stretches", sa.Text, nullable=False, server_default="[]"),
        sa.Column("is_decided", sa.Boolean, nullable=False, server_default="false", index=True),
        sa.Column("skips", sa.Integer, nullable=False, server_default="0"),
        sa.Column("reserved_by", sa.String(128), nullable=False, server_default=""),
        sa.Column("reserve_time", sa.DateTime(timezone=True)),
        sa.Column("decided_by", sa.String(128), nullable=False, server_default=""),
        sa.Column("decide_time", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "review_marks",
        sa.Column("passage_id", sa.String(64), primary_key=True),
        sa.Column("start", sa.Integer, primary_key=True),
        sa.Column("end", sa.Integer, nullable=False),
        sa.Column("entity_type", sa.String(40), nullable=False),
        sa.Column("term_hash", sa.String(64), nullable=False, index=True),
    )


def _create_terms() -> None:
    op.create_table(
        "review_terms",
        sa.Column("term_hash", sa.String(64), primary_key=True),
        sa.Column("entity_type", sa.String(40), nullable=False),
        sa.Column("words", sa.Integer, nullable=False),
        sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False),
    )
    op.create_table(
        "review_combinations",
        sa.Column("document_id", sa.String(64), primary_key=True),
        sa.Column("value_hash", sa.String(64), primary_key=True, index=True),
        sa.Column("entity_types", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
    )
