"""The review's tables in PostgreSQL. They hold places, types and keyed hashes, and no text of a document. A change needs a migration."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData()

# The newest version of every document: what a sample is drawn from.
DOCUMENTS = Table(
    "review_documents",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("source", String(64), nullable=False),
    Column("language", String(8), nullable=False),
    Column("passages", Integer, nullable=False),
    Column("replaced", JSONB(none_as_null=True)),
    # What reviews had decided when the document passed.
    Column("terms_digest", String(64), nullable=False, server_default=""),
    Column("department", String(64), nullable=False, server_default=""),
    Column("words", Integer, nullable=False, server_default="0"),
)
# How often each surrogate occurs in the newest version, as it is spelt there.
REPLACED = Table(
    "review_replaced",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("entity_type", String(40), primary_key=True),
    Column("surrogate", Text, primary_key=True),
    Column("times", Integer, nullable=False),
    Index("review_replaced_string", "entity_type", func.lower(text("surrogate"))),
)
# By the surrogate in small letters. It means nothing without its vault entry.
REPLACED_DECISIONS = Table(
    "review_replaced_decisions",
    METADATA,
    Column("entity_type", String(40), primary_key=True),
    Column("surrogate", Text, primary_key=True),
    Column("decision", String(16), nullable=False),
    Column("decided_by", String(128), nullable=False),
    Column("decide_time", DateTime(timezone=True), nullable=False),
)
SAMPLES = Table(
    "review_samples",
    METADATA,
    Column("number", BigInteger, Identity(), primary_key=True),
    Column("sample_id", String(64), nullable=False, unique=True),
    Column("seed", BigInteger, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
STRATA = Table(
    "review_strata",
    METADATA,
    Column("sample_id", String(64), primary_key=True),
    Column("source", String(64), primary_key=True),
    Column("language", String(8), primary_key=True),
    Column("passages", BigInteger, nullable=False),
    Column("drawn", Integer, nullable=False),
)
# `sample_id` is empty for disagreements.
PASSAGES = Table(
    "review_passages",
    METADATA,
    Column("passage_id", String(64), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("sample_id", String(64), nullable=False, index=True),
    Column("document_id", String(64), nullable=False, index=True),
    Column("sequence", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("source", String(64), nullable=False),
    Column("language", String(8), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("stretches", JSONB, nullable=False),
    Column("is_decided", Boolean, nullable=False, server_default="false", index=True),
    Column("skips", Integer, nullable=False, server_default="0"),
    Column("reserved_by", String(128), nullable=False, server_default=""),
    Column("reserve_time", DateTime(timezone=True)),
    Column("decided_by", String(128), nullable=False, server_default=""),
    Column("decide_time", DateTime(timezone=True)),
)
# A mark without a type says that a stretch is not personal.
MARKS = Table(
    "review_marks",
    METADATA,
    Column("passage_id", String(64), primary_key=True),
    Column("start", Integer, primary_key=True),
    Column("end", Integer, nullable=False),
    Column("entity_type", String(40), nullable=False),
    Column("term_hash", String(64), nullable=False, index=True),
)
TERMS = Table(
    "review_terms",
    METADATA,
    Column("term_hash", String(64), primary_key=True),
    Column("entity_type", String(40), nullable=False),
    Column("words", Integer, nullable=False),
    # Replaced by a new number when the decision changes, so that replicas notice.
    Column("number", BigInteger, Identity(), nullable=False),
)
COMBINATIONS = Table(
    "review_combinations",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("value_hash", String(64), primary_key=True, index=True),
    Column("entity_types", JSONB, nullable=False),
    Column("number", Integer, nullable=False),
)
