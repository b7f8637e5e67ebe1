"""People who may sign in to the console, and sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0396"
down_revision = "0395"

# Empty if a person has none.
UNIQUE = ("mail", "secret_sha256", "invitation_sha256")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "people",
        sa.Column("person_id", sa.String(64), primary_key=True),
        sa.Column("position", sa.BigInteger(), sa.Identity(), nullable=False, unique=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("mail", sa.String(254), nullable=False),
        sa.Column("role", sa.String(32), nullable=False),
        sa.Column("specialists", sa.JSON(), nullable=False),
        sa.Column("secret_sha256", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(512), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("invitation_sha256", sa.String(64), nullable=False),
        sa.Column("invitation_expire_time", sa.DateTime(timezone=True), nullable=True),
        sa.Column("invited_by", sa.String(64), nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
    )
    for column in UNIQUE:
        op.create_index(
            f"ix_people_{column}", "people", [column], unique=True, postgresql_where=sa.text(f"{column} <> ''")
        )
    op.create_index(
        "ix_people_subject", "people", ["issuer", "subject"], unique=True, postgresql_where=sa.text("subject <> ''")
    )
    op.create_table(
        "sessions",
        sa.Column("session_sha256", sa.String(64), primary_key=True),
        sa.Column("holder_id", sa.String(64), nullable=False, index=True),
        sa.Column("expire_time", sa.DateTime(timezone=True), nullable=False, index=True),
    )
