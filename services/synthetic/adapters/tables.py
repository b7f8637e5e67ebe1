"""Synthetic's tables."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tailor.api.events.v1 import models_pb2
from tailor.events.outbox import outbox_table
from tailor.jobs import jobs_table
from tailor.rows import MessageColumn

metadata = MetaData()

# Numbers documents and judgements in the order in which they arrived.
positions = Sequence("item_positions", metadata=metadata)

documents = Table(
    "documents",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", String(128), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("source", String(64), nullable=False),
    Column("department", String(64), nullable=False),
    Column("confidentiality", String(64), nullable=False),
    Column("publisher", String(64), nullable=False, server_default=""),
    Column("text_uri", String(512), nullable=False),
    Column("text_sha256", String(64), nullable=False),
    Column("text_size_bytes", BigInteger, nullable=False),
    Column("draft_id", String(64), nullable=False, index=True),
    Column("language", String(16), nullable=False),
    Column("spans", JSONB, nullable=False),
    # A digest of everything that rows depend on.
    Column("fingerprint", String(64), nullable=False),
    Column("position", BigInteger, nullable=False, index=True),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_documents_labels", "source", "department", "confidentiality", "publisher", "position"),
    Index("ix_documents_finished", "position", postgresql_where=text("kind = 'deliverable' AND draft_id <> ''")),
)

# The labels that documents have, with the position and time of the newest document that had them: a few rows.
newest_labels = Table(
    "newest_labels",
    metadata,
    Column("source", String(64), primary_key=True),
    Column("department", String(64), primary_key=True),
    Column("confidentiality", String(64), primary_key=True),
    Column("publisher", String(64), primary_key=True, server_default=""),
    Column("position", BigInteger, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)

# Where a specialist's documents may come from. Those without a name of who admitted them were there before its first dataset.
origins = Table(
    "origins",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("admitted_by", String(64), nullable=False, server_default=""),
    Column("admitted_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    # The position when it was admitted, and that of its first document then.
    Column("position", BigInteger, nullable=False),
    Column("first_position", BigInteger, nullable=False),
)

# Documents whose newest text is not prepared yet.
pending = Table(
    "pending",
    metadata,
    Column("document_id", String(64), ForeignKey("documents.document_id", ondelete="CASCADE"), primary_key=True),
    Column("position", BigInteger, nullable=False, index=True),
)

judgements = Table(
    "judgements",
    metadata,
    Column("judgement_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("ranking", JSONB, nullable=False),
    Column("rubric", JSONB, nullable=False),
    Column("comment", Text, nullable=False),
    # Drafts of which none is better; then there is no ranking.
    Column("equal_drafts", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    # The place of each ranked draft; empty if no two are equally good.
    Column("places", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("position", BigInteger, nullable=False, index=True),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_judgements_ranking", "ranking", postgresql_using="gin"),
    Index("ix_judgements_equal_drafts", "equal_drafts", postgresql_using="gin"),
    Index("ix_judgements_commented", "specialist", "position", postgresql_where=text("comment <> ''")),
    Index("ix_judgements_specialist_position", "specialist", "position"),
)

# Drafts whose texts are stored. Saved drafts were judged or finished.
drafts = Table(
    "drafts",
    metadata,
    Column("draft_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("prompt_digest", String(64), nullable=False),
    Column("adapter_digest", String(64), nullable=False),
    Column("text_uri", String(512), nullable=False),
    Column("text_sha256", String(64), nullable=False),
    Column("text_size_bytes", BigInteger, nullable=False),
    Column("saved", Boolean, nullable=False),
    Column("kept_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp(), index=True),
    # The draft that an expert edited into this one.
    Column("edit_of", String(64), nullable=False, server_default=""),
    # Documents of the row whose prompt was drawn; empty if somebody sent it.
    Column("drawn_from", ARRAY(String(64)), nullable=False, server_default="{}"),
    Index("ix_drafts_drawn_from", "drawn_from", postgresql_using="gin"),
)

# Prompts of rows that were drawn for experts; none is drawn twice for a specialist.
drawn_prompts = Table(
    "drawn_prompts",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("prompt_digest", String(64), primary_key=True),
    Column("task", String(64), nullable=False),
    Column("document_ids", ARRAY(String(64)), nullable=False),
    Column("drawn_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_drawn_prompts_document_ids", "document_ids", postgresql_using="gin"),
)

# The side of each document of a specialist. Never changes.
assignments = Table(
    "assignments",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("document_id", String(64), primary_key=True, index=True),
    Column("component_id", String(64), nullable=False),
    Column("held_out", Boolean, nullable=False),
    Column("rows", Integer, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("near_duplicates", Integer, nullable=False),
    Column("skipped", JSONB, nullable=False),
    Column("pairs", JSONB, nullable=False),
    Column("intake_seconds", Double, nullable=False),
    Column("payload", MessageColumn(models_pb2.DatasetBuilt), nullable=False),
)

# The files of datasets, with the segment of the documents that they were made from; -1 for documents of any segment.
dataset_files = Table(
    "dataset_files",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("key", String(128), primary_key=True, index=True),
    Column("segment", Integer, nullable=False),
    Column("is_sources", Boolean, nullable=False),
)

# Versions of documents whose datasets are still to be superseded.
superseded = Table(
    "superseded",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("erasure_id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("segment", Integer),
    Column("kept_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp(), index=True),
)

# The train rows of segments as the last build of a specialist made them.
segments = Table(
    "segments",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("inputs", String(64), nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("file_keys", ARRAY(String(128)), nullable=False),
    Column("answers", LargeBinary, nullable=False),
    Column("shares", LargeBinary, nullable=False),
    Index("ix_segments_file_keys", "file_keys", postgresql_using="gin"),
)

# Files that a running build writes; those that are left are of a build that was killed.
written_files = Table(
    "written_files",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("key", String(128), primary_key=True),
)

builds = Table(
    "builds",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("sync_revision", BigInteger, nullable=False, server_default="0"),
    Column("sync_cursor", BigInteger, nullable=False, server_default="0"),
    Column("built_position", BigInteger, nullable=False, server_default="0"),
    Column("tried_position", BigInteger, nullable=False, server_default="0"),
    Column("fingerprint", String(64), nullable=False, server_default=""),
    Column("digest", String(64), nullable=False, server_default=""),
    Column("built_at", DateTime(timezone=True)),
)

requests = Table(
    "requests",
    metadata,
    Column("request_id", String(128), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("created", Boolean, nullable=False),
)

# What is known of a document's text before any build. `arrival` numbers documents; without a cluster, the text no longer exists.
sketches = Table(
    "sketches",
    metadata,
    Column("document_id", String(64), ForeignKey("documents.document_id", ondelete="CASCADE"), primary_key=True),
    Column("arrival", BigInteger, nullable=False, unique=True),
    Column("text_sha256", String(64), nullable=False),
    Column("cluster_id", BigInteger, index=True),
    Column("characters", Integer, nullable=False),
    Column("letters", Integer, nullable=False),
    Column("parts", ARRAY(BigInteger), nullable=False),
    Column("seconds", Double, nullable=False),
)

# Texts that are nearly the same: whole documents, or passages. The sketch is that of the first text.
text_clusters = Table(
    "text_clusters",
    metadata,
    Column("cluster_id", BigInteger, Identity(), primary_key=True),
    Column("whole", Boolean, nullable=False),
    Column("minhash", LargeBinary, nullable=False),
    Column("bands", ARRAY(BigInteger), nullable=False),
)

# The cluster that had a band first.
text_bands = Table(
    "text_bands",
    metadata,
    Column("band", BigInteger, primary_key=True),
    Column("cluster_id", BigInteger, nullable=False),
)

cluster_documents = Table(
    "cluster_documents",
    metadata,
    Column("cluster_id", BigInteger, ForeignKey("text_clusters.cluster_id"), primary_key=True),
    Column(
        "document_id", String(64), ForeignKey("documents.document_id", ondelete="CASCADE"), primary_key=True, index=True
    ),
)

syntheses = Table(
    "syntheses",
    metadata,
    Column("synthesis_id", String(40), primary_key=True),
    Column("request_id", String(128), unique=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("spec", JSONB, nullable=False),
    Column("teacher", String(256), nullable=False),
    Column("judge", String(256), nullable=False),
    Column("prompt_version", String(32), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    # Tokens by model: reported, reserved for running requests, and the worst case of lost answers.
    Column("use", JSONB, nullable=False),
    Column("resume_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", DateTime(timezone=True)),
)

# Answers of teachers and judges, stored before use. `checked` means that the rows of the request are stored.
synthesis_answers = Table(
    "synthesis_answers",
    metadata,
    Column("synthesis_id", String(40), ForeignKey("syntheses.synthesis_id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("step", String(32), primary_key=True),
    Column("model", String(256), nullable=False),
    Column("text", Text, nullable=False),
    Column("finish_reason", String(32), nullable=False),
    Column("is_refused", Boolean, nullable=False),
    Column("checked", Boolean, nullable=False, server_default="false"),
    # What it was written from: documents and examples, or the judgement and the draft of a critique.
    Column("document_ids", ARRAY(String(64)), nullable=False),
    Index("ix_synthesis_answers_document_ids", "document_ids", postgresql_using="gin"),
)

# Rows, and those that a check refused.
synthesis_rows = Table(
    "synthesis_rows",
    metadata,
    Column("synthesis_id", String(40), ForeignKey("syntheses.synthesis_id", ondelete="CASCADE"), primary_key=True),
    Column("row_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("row", JSONB, nullable=False),
    # As for answers.
    Column("document_ids", ARRAY(String(64)), nullable=False),
    # The judgement whose comment a critique answers; empty for other rows.
    Column("judgement_id", String(64), nullable=False, server_default=""),
    Column("mark", Integer, nullable=False),
    Column("back_translation", Float),
    Column("reviewer", String(128), nullable=False),
    Column("reviewed_at", DateTime(timezone=True)),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_synthesis_rows_specialist", "specialist", "state", "row_id"),
    Index("ix_synthesis_rows_document_ids", "document_ids", postgresql_using="gin"),
    # No comment is answered twice.
    Index("ix_synthesis_rows_judgement_id", "judgement_id", unique=True, postgresql_where=text("judgement_id <> ''")),
)

dataset_imports = Table(
    "dataset_imports",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("licence", String(128), nullable=False),
    Column("share_percent", Integer, nullable=False),
    Column("source", String(200), nullable=False),
    Column("specialists", JSONB, nullable=False),
    Column("parts", Integer, nullable=False, server_default="0"),
    Column("rows", BigInteger, nullable=False, server_default="0"),
    Column("rejected", JSONB, nullable=False, server_default="{}"),
    # Empty until the import is finished.
    Column("file_uri", String(512)),
    Column("file_sha256", String(64)),
    Column("file_size_bytes", BigInteger),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

# The ids, for erasures, of the rows that contain surrogates, each with the number of its chunk.
import_texts = Table(
    "dataset_import_texts",
    metadata,
    Column("text_id", String(64), primary_key=True),
    Column("name", String(64), ForeignKey("dataset_imports.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("part", Integer, nullable=False),
)

jobs = jobs_table(metadata)

outbox = outbox_table(metadata)
