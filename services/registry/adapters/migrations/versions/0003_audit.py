"""Columns for the audit: format, language, length and findings of documents; labels, format and stage of rejections."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from tailor.api.events.v1 import documents_pb2

revision = "0003"
down_revision = "0002"

BATCH = 1000


def upgrade() -> None:
    """Add the columns and fill them from the stored events."""
    op.add_column("documents", sa.Column("format", sa.String(32), nullable=False, server_default=""))
    op.add_column("documents", sa.Column("language", sa.String(16), nullable=False, server_default=""))
    op.add_column("documents", sa.Column("char_count", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("documents", sa.Column("findings", JSONB, nullable=False, server_default="{}"))
    for name, length in (("source", 64), ("department", 64), ("confidentiality", 64), ("format", 32), ("stage", 16)):
        op.add_column("submissions", sa.Column(name, sa.String(length), nullable=False, server_default=""))
    op.create_index("submissions_state", "submissions", ["state", "reason"])
    _fill_documents()
    _fill_rejections()


def _fill_documents() -> None:
    names = ("document_id", "payload", "format", "language", "char_count")
    table = sa.table("documents", *map(sa.column, names), sa.column("findings", JSONB))
    connection, after = op.get_bind(), ""
    query = sa.select(table.c.document_id, table.c.payload).order_by(table.c.document_id).limit(BATCH)
    while rows := connection.execute(query.where(table.c.document_id > after)).all():
        for document_id, payload in rows:
            message = documents_pb2.DocumentAnonymized.FromString(payload)
            values = {
                "format": message.format[:32],
                "language": message.language,
                "char_count": message.char_count,
                "findings": dict(message.findings),
            }
            connection.execute(sa.update(table).where(table.c.document_id == document_id).values(values))
            after = document_id


def _fill_rejections() -> None:
    names = ("submission_id", "state", "payload", "source", "department", "confidentiality", "format", "stage")
    table = sa.table("submissions", *map(sa.column, names))
    connection, after = op.get_bind(), ""
    rejected = sa.select(table.c.submission_id, table.c.payload).where(table.c.state == "rejected")
    query = rejected.order_by(table.c.submission_id).limit(BATCH)
    while rows := connection.execute(query.where(table.c.submission_id > after)).all():
        for submission_id, payload in rows:
            message = documents_pb2.DocumentRejected.FromString(payload)
            values = {
                "source": message.labels.source[:64],
                "department": message.labels.department[:64],
                "confidentiality": message.labels.confidentiality[:64],
                "format": message.format[:32],
                "stage": documents_pb2.Stage.Name(message.stage).removeprefix("STAGE_").lower(),
            }
            connection.execute(sa.update(table).where(table.c.submission_id == submission_id).values(values))
            after = submission_id
