"""The tables of ingestion's database: the only place that stores publishers' ids and file names.

A change needs a migration in `migrations/versions/`.
"""

from sqlalchemy import BigInteger, Column, DateTime, MetaData, String, Table, Text, func

from tailor.events.outbox import outbox_table

METADATA = MetaData()

DOCUMENTS = Table(
    "documents",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("external_hash", String(64), nullable=False, unique=True),
    Column("external_id", Text, nullable=False),
    Column("file_name", Text, nullable=False, server_default=""),
    # Unique: a text is current in at most one document.
    Column("digest", String(64), unique=True),
    Column("sequence", BigInteger, nullable=False, server_default="0"),
    # Set while the document is erased, and rejects it until the erasure is lifted; otherwise empty.
    Column("erasure_id", String(64), nullable=False, server_default=""),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
SUBMISSIONS = Table(
    "submissions",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("submission_id", String(64), nullable=False),
    Column("document_id", String(64), nullable=False, index=True),
    Column("outcome", Text, nullable=False),
    # The keyed hash of the publisher's id, also if the submission is malformed; none if no id could be read.
    Column("external_hash", String(64), index=True),
    # The key that submitted it; empty for an event.
    Column("publisher", String(64), nullable=False, server_default=""),
    # Why anonymization rejected the version; empty if it did not.
    Column("later_reason", String(64), nullable=False, server_default=""),
    Column("later_hint", Text, nullable=False, server_default=""),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
OUTBOX = outbox_table(METADATA)
