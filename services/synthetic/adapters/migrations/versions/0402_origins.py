"""Where a specialist's documents may come from."""

import sqlalchemy as sa
from alembic import op

revision = "0402"
down_revision = "0401"


def upgrade() -> None:
    """Add the table, and admit what specialists with a dataset may have learned from already."""
    op.create_table(
        "origins",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("admitted_by", sa.String(64), nullable=False, server_default=""),
        sa.Column("admitted_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("first_position", sa.BigInteger, nullable=False),
    )
    op.execute("""
        INSERT INTO origins (specialist, kind, name, position, first_position)
        SELECT built.specialist, found.kind, found.name, 0, found.first
        FROM (SELECT specialist FROM builds WHERE kind = 'sft' AND built_at IS NOT NULL) built CROSS JOIN (
            SELECT kind, name, min(position) AS first FROM (
                SELECT position,
                    CASE kind WHEN 'example' THEN 'examples' WHEN 'test' THEN 'tests' ELSE 'source' END AS kind,
                    CASE WHEN kind IN ('example', 'test') THEN publisher ELSE source END AS name
                FROM documents
            ) named GROUP BY kind, name
        ) found
    """)
