"""The newest dataset of each kind, by specialist."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0381"
down_revision = "0003"

RUNS = "SELECT specialist, create_time, body FROM runs ORDER BY create_time, run_id"


def upgrade() -> None:
    """Add the table, with the datasets of the newest runs."""
    table = op.create_table(
        "newest_datasets",
        sa.Column("specialist", sa.String(63), primary_key=True),
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("uri", sa.String(512), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("create_time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
    )
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for run in op.get_bind().execute(sa.text(RUNS)):
        for stage in run.body["stages"]:
            if stage.get("dataset"):
                _count(newest, run, stage)
    if table is not None and newest:
        op.bulk_insert(table, list(newest.values()))


def _count(newest: dict[tuple[str, str], dict[str, Any]], run: Any, stage: dict[str, Any]) -> None:
    key, dataset = (run.specialist, stage["learns_from"]), stage["dataset"]
    known = newest.get(key)
    if known is not None and known["digest"] == dataset["sha256"]:
        return
    newest[key] = {
        "specialist": run.specialist,
        "kind": stage["learns_from"],
        "digest": dataset["sha256"],
        "uri": dataset["uri"],
        "size_bytes": dataset["size_bytes"],
        "create_time": run.create_time,
        "number": known["number"] + 1 if known else 1,
    }
