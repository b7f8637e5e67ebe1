"""The vault's tables in PostgreSQL. A change needs a migration in `adapters/migrations/versions/`."""

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, String, Table, Text, UniqueConstraint, func

METADATA = MetaData()

ENTRIES = Table(
    "entries",
    METADATA,
    Column("entity_type", String(40), primary_key=True),
    Column("value_hash", String(64), primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),
    Column("surrogate", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("key_id", String(16), nullable=False, server_default=""),
    UniqueConstraint("entity_type", "surrogate", name="entries_surrogate"),
)
SECRETS = Table(
    "secrets",
    METADATA,
    Column("name", String(16), primary_key=True),
    Column("key_id", String(16), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
)
OCCURRENCES = Table(
    "occurrences",
    METADATA,
    Column("document_id", String(64), primary_key=True),
    Column("entity_type", String(40), primary_key=True),
    Column("surrogate", Text, primary_key=True),
)
# Found by keyed hash. The surrogate means nothing without its vault entry; it finds the documents if the person is named again.
SUPPRESSIONS = Table(
    "suppressions",
    METADATA,
    Column("subject_hash", String(64), primary_key=True),
    Column("entity_type", String(40), nullable=False),
    Column("surrogate", Text, nullable=False),
)
