"""The tables of training's database. A change needs a migration in `migrations/versions/`.

Fields that are searched for have a column; the rest of a run is JSON, a report is a serialised message.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from tailor.events.outbox import outbox_table
from tailor.jobs import jobs_table
from tailor.listing import listed_columns

metadata = MetaData()

# `preference_dataset_digest` is the requested dataset, `rankings_digest` the one that the stages learn from; `progress` is a RunProgressed.
runs = Table(
    "runs",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("specialist", String(63), nullable=False),
    Column("dataset_digest", String(64), nullable=False),
    Column("base", String(63), nullable=False),
    Column("recipe_digest", String(128), nullable=False),
    Column("parent_digest", String(64), nullable=False),
    Column("preference_dataset_digest", String(64), nullable=False),
    Column("rankings_digest", String(64), nullable=False),
    Column("state", String(32), nullable=False, index=True),
    Column("create_time", DateTime(timezone=True), nullable=False, index=True),
    Column("body", JSON, nullable=False),
    Column("progress", LargeBinary),
    *listed_columns(),
    UniqueConstraint(
        "specialist",
        "dataset_digest",
        "base",
        "recipe_digest",
        "parent_digest",
        "preference_dataset_digest",
        name="one_run_per_key",
    ),
)

# `message` is a RunProgressed.
reports = Table(
    "reports",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("message", LargeBinary, nullable=False),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("run_id", String(64), ForeignKey("runs.run_id", ondelete="CASCADE"), nullable=False, index=True),
    Column("body", JSON, nullable=False),
)

plans = Table(
    "plans",
    metadata,
    Column("run_id", String(64), primary_key=True),
    Column("body", JSON, nullable=False),
)

# Workers that were started and may still be alive.
workers = Table(
    "workers",
    metadata,
    Column("run_id", String(64), ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("stop_time", DateTime(timezone=True)),
)

# Adapters that later runs may build on.
adapters = Table(
    "adapters",
    metadata,
    Column("position", BigInteger, Identity(), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("specialist", String(63), nullable=False, index=True),
    Column("base", String(63), nullable=False),
    Column("kind", String(16), nullable=False),
)

# The newest dataset of each kind; `digest` is empty after it was dropped. `number` counts the datasets of the kind.
newest_datasets = Table(
    "newest_datasets",
    metadata,
    Column("specialist", String(63), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("manifest", JSON, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False),
    Column("number", Integer, nullable=False),
)

jobs = jobs_table(metadata)

outbox = outbox_table(metadata)
