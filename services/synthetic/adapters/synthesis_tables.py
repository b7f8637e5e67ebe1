"""Tables of syntheses."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from services.synthetic.adapters.tables import metadata

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
    # The lease: every holder has a higher epoch.
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    Column("leased_until", DateTime(timezone=True)),
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
    Column("refused", Boolean, nullable=False),
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
