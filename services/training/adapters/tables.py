"""Training's tables. What is searched for has a column; the rest of a run or report is JSON."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from tailor.events.outbox import outbox_table

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("base", String(63), nullable=False),
    Column("recipe_digest", String(128), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("create_time", DateTime(timezone=True), nullable=False, index=True),
    Column("body", JSON, nullable=False),
    UniqueConstraint("specialist", "dataset_digest", "base", "recipe_digest", name="one_run_per_key"),
)

reports = Table(
    "reports",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("body", JSON, nullable=False),
)

outbox = outbox_table(metadata)
