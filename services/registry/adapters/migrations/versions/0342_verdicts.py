"""Reasons of every verdict, and the specialist of each evaluation."""

import sqlalchemy as sa
from alembic import op

from tailor.api.events.v1 import models_pb2

revision = "0342"
down_revision = "0341"


def upgrade() -> None:
    """Change the table. The specialist stands in each stored event."""
    op.alter_column("evaluations", "refusals", new_column_name="reasons")
    op.add_column("evaluations", sa.Column("specialist", sa.String(63), nullable=False, server_default=""))
    table = sa.table("evaluations", sa.column("evaluation_id"), sa.column("specialist"), sa.column("payload"))
    connection = op.get_bind()
    for row in connection.execute(sa.select(table.c.evaluation_id, table.c.payload)).all():
        specialist = models_pb2.AdapterEvaluated.FromString(row.payload).specialist
        connection.execute(
            sa.update(table).where(table.c.evaluation_id == row.evaluation_id).values(specialist=specialist)
        )
    op.alter_column("evaluations", "specialist", server_default=None)
    op.create_index("ix_evaluations_specialist", "evaluations", ["specialist"])
