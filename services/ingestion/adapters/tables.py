"""The tables of ingestion's database: the only place that stores publishers' ids and file names.

A change needs a migration in `migrations/versions/`.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tailor.events.outbox import outbox_table
from tailor.jobs import jobs_table

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
    # The policy and detectors under which the newest version passes the barrier: empty if they were not known yet when it was accepted.
    Column("barrier", String(64), nullable=False, server_default=""),
    # Where the newest version was fetched from, encrypted; empty if it was not, or if its address may contain a secret.
    Column("reference", LargeBinary, nullable=False, server_default=""),
    # The kind of its versions; empty until one is accepted.
    Column("kind", String(16), nullable=False, server_default=""),
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
    Column("outcome", JSONB, nullable=False),
    # The keyed hash of the publisher's id, also if the submission is malformed; none if no id could be read.
    Column("external_hash", String(64), index=True),
    # The key that submitted it; empty for an event.
    Column("publisher", String(64), nullable=False, server_default=""),
    # Why anonymization rejected the version, if it did.
    Column("later_reason", String(64)),
    Column("later_hint", Text),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
REPLAYS = Table(
    "replays",
    METADATA,
    Column("replay_id", String(64), primary_key=True),
    Column("position", BigInteger, Identity(), nullable=False),
    Column("barrier", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("requested_by", String(128), nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("end_time", DateTime(timezone=True)),
    # One runs at a time.
    Index("ix_replays_running", "state", unique=True, postgresql_where=text("state = 'RUNNING'")),
)
# The documents of a replay in the order in which they are sent. `outcome` is empty until there is one.
REPLAY_DOCUMENTS = Table(
    "replay_documents",
    METADATA,
    Column("replay_id", String(64), primary_key=True),
    Column("document_id", String(64), primary_key=True, index=True),
    Column("number", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False, server_default=""),
    Index("ix_replay_documents_outcome", "replay_id", "outcome", "number"),
)
OUTBOX = outbox_table(METADATA)
JOBS = jobs_table(METADATA)
