"""Datasets in segments: documents are prepared when they arrive, sides belong to specialists, and files are listed.

Earlier datasets have another manifest and cannot be read any more; teachers' answers are no longer asked for by builds.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Replace the tables of clusters, sketches and teachers' answers, and add those of segments and files."""
    for table in ("clusters", "sketches", "lessons", "datasets", "builds", "requests"):
        op.execute(f"DROP TABLE {table}")
    _documents()
    _preparation()
    _datasets()
    _builds()


def _documents() -> None:
    op.add_column("documents", sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""))
    op.execute(
        "UPDATE documents SET fingerprint = md5(text_sha256 || language || source || spans::text || kind || draft_id)"
    )
    op.alter_column("documents", "fingerprint", server_default=None)
    op.create_index("ix_documents_labels", "documents", ["source", "department", "confidentiality", "position"])
    finished = sa.text("kind = 'deliverable' AND draft_id <> ''")
    op.create_index("ix_documents_finished", "documents", ["position"], postgresql_where=finished)
    op.create_index("ix_judgements_position", "judgements", ["position"])
    op.create_index("ix_judgements_specialist_position", "judgements", ["specialist", "position"])
    labels = ("source", "department", "confidentiality")
    op.create_table(
        "newest_labels",
        *(sa.Column(name, sa.String(64), primary_key=True) for name in labels),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(
        "INSERT INTO newest_labels SELECT source, department, confidentiality, max(position), max(changed_at) "
        "FROM documents GROUP BY source, department, confidentiality"
    )


def _preparation() -> None:
    op.create_table(
        "pending",
        sa.Column("document_id", sa.String(64), _of_document(), primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False, index=True),
    )
    op.execute("INSERT INTO pending SELECT document_id, position FROM documents")
    op.create_table(
        "sketches",
        sa.Column("document_id", sa.String(64), _of_document(), primary_key=True),
        sa.Column("arrival", sa.BigInteger, nullable=False, unique=True),
        sa.Column("text_sha256", sa.String(64), nullable=False),
        sa.Column("cluster_id", sa.BigInteger, index=True),
        sa.Column("characters", sa.Integer, nullable=False),
        sa.Column("letters", sa.Integer, nullable=False),
        sa.Column("parts", ARRAY(sa.BigInteger), nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
    )
    op.create_table(
        "text_clusters",
        sa.Column("cluster_id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("whole", sa.Boolean, nullable=False),
        sa.Column("minhash", sa.LargeBinary, nullable=False),
        sa.Column("bands", ARRAY(sa.BigInteger), nullable=False),
    )
    op.create_table(
        "text_bands",
        sa.Column("band", sa.BigInteger, primary_key=True),
        sa.Column("cluster_id", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "cluster_documents",
        sa.Column("cluster_id", sa.BigInteger, sa.ForeignKey("text_clusters.cluster_id"), primary_key=True),
        sa.Column("document_id", sa.String(64), _of_document(), primary_key=True, index=True),
    )


def _of_document() -> sa.ForeignKey:
    return sa.ForeignKey("documents.document_id", ondelete="CASCADE")


def _datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("near_duplicates", sa.Integer, nullable=False),
        sa.Column("left_out", JSONB, nullable=False),
        sa.Column("pairs", JSONB, nullable=False),
        sa.Column("intake_seconds", sa.Double, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "dataset_files",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True, index=True),
        sa.Column("segment", sa.Integer, nullable=False),
        sa.Column("is_sources", sa.Boolean, nullable=False),
    )
    op.create_table(
        "written_files",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
    )
    op.create_table(
        "requests",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("specialist", sa.String(63), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created", sa.Boolean, nullable=False),
    )


def _builds() -> None:
    op.create_table(
        "assignments",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("document_id", sa.String(64), primary_key=True, index=True),
        sa.Column("component_id", sa.String(64), nullable=False),
        sa.Column("held_out", sa.Boolean, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("inputs", sa.String(64), nullable=False),
        sa.Column("facts", JSONB, nullable=False),
        sa.Column("file_keys", ARRAY(sa.String(128)), nullable=False),
        sa.Column("answers", sa.LargeBinary, nullable=False),
        sa.Column("shares", sa.LargeBinary, nullable=False),
        sa.Column("checks", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_segments_file_keys", "segments", ["file_keys"], postgresql_using="gin")
    op.create_table(
        "builds",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("filled_revision", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("built_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("tried_position", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fingerprint", sa.String(64), nullable=False, server_default=""),
        sa.Column("digest", sa.String(64), nullable=False, server_default=""),
        sa.Column("built_at", sa.DateTime(timezone=True)),
    )
