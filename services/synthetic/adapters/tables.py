"""Synthetic's tables."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from tailor.events.outbox import outbox_table

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
    Column("text_uri", String(512), nullable=False),
    Column("text_sha256", String(64), nullable=False),
    Column("text_size_bytes", BigInteger, nullable=False),
    Column("draft_id", String(64), nullable=False, index=True),
    Column("language", String(16), nullable=False),
    Column("spans", JSONB, nullable=False),
    Column("position", BigInteger, nullable=False, index=True),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

judgements = Table(
    "judgements",
    metadata,
    Column("judgement_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("ranking", JSONB, nullable=False),
    Column("rubric", JSONB, nullable=False),
    Column("comment", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
    Index("ix_judgements_ranking", "ranking", postgresql_using="gin"),
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
)

clusters = Table(
    "clusters",
    metadata,
    Column("document_id", String(64), primary_key=True),
    Column("cluster_id", String(64), nullable=False, index=True),
    Column("held_out", Boolean, nullable=False),
)

datasets = Table(
    "datasets",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("near_duplicates", Integer, nullable=False),
    Column("left_out", JSONB, nullable=False),
    Column("pairs", JSONB, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("filled_revision", BigInteger, nullable=False, server_default="0"),
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

# A text's MinHash and its bands. Texts that share a band may be near-duplicates.
sketches = Table(
    "sketches",
    metadata,
    Column("document_id", String(64), ForeignKey("documents.document_id", ondelete="CASCADE"), primary_key=True),
    Column("text_sha256", String(64), nullable=False),
    Column("minhash", LargeBinary, nullable=False),
    Column("bands", ARRAY(BigInteger), nullable=False),
)

outbox = outbox_table(metadata)
