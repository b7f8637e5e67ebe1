"""The tables of evaluation's database. A change needs a migration in `migrations/versions/`."""

from sqlalchemy import BigInteger, Column, DateTime, Float, Integer, MetaData, String, Table, func
from sqlalchemy.dialects.postgresql import JSONB

from tailor.api.events.v1 import models_pb2
from tailor.events.outbox import outbox_table
from tailor.jobs import jobs_table
from tailor.rows import MessageColumn

metadata = MetaData()

datasets = Table(
    "datasets",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("uri", String(512), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    # The specialist whose ranked drafts it has; empty for datasets of documents.
    Column("ranked_for", String(63), nullable=False, server_default=""),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

agreements = Table(
    "agreements",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("kappa", Float),
    Column("pairs", Integer, nullable=False),
    Column("failures", Integer, nullable=False),
)

definitions = Table(
    "definitions",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("freeze_time", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

adapters = Table(
    "adapters",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("base", String(128), nullable=False),
    Column("uri", String(512), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("parent_digest", String(64), nullable=False, server_default=""),
    Column("sft_dataset_digest", String(64), nullable=False, server_default=""),
    Column("preference_dataset_digest", String(64), nullable=False, server_default=""),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("evaluation_id", String(64), primary_key=True),
    Column("adapter_digest", String(64), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("rows_done", Integer, nullable=False, server_default="0"),
    Column("rows_total", Integer, nullable=False, server_default="0"),
    Column("reason", String(128), nullable=False, server_default=""),
    # The event of one that succeeded.
    Column("payload", MessageColumn(models_pb2.AdapterEvaluated)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

results = Table(
    "results",
    metadata,
    Column("evaluation_id", String(64), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("answers", JSONB, nullable=False),
    Column("scores", JSONB, nullable=False),
    Column("rejected_scores", JSONB, nullable=False),
    Column("notes", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp()),
)

outbox = outbox_table(metadata)
jobs = jobs_table(metadata)
