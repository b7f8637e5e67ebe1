"""Runs have stages, a parent and rankings. New tables: plans, logs, workers and adapters."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

KEY = ["specialist", "dataset_digest", "base", "recipe_digest"]
ADDED = ["parent_digest", "preference_dataset_digest"]


def upgrade() -> None:
    """Widen the key, give every run its single stage, and create the tables."""
    for name in (*ADDED, "rankings_digest"):
        op.add_column("runs", sa.Column(name, sa.String(64), nullable=False, server_default=""))
        op.alter_column("runs", name, server_default=None)
    op.drop_constraint("one_run_per_key", "runs")
    op.create_unique_constraint("one_run_per_key", "runs", [*KEY, *ADDED])
    op.create_table(
        "run_logs",
        sa.Column("position", sa.BigInteger, sa.Identity(), primary_key=True),
        _run_id(index=True),
        sa.Column("body", sa.JSON, nullable=False),
    )
    op.create_table(
        "plans", sa.Column("run_id", sa.String(64), primary_key=True), sa.Column("body", sa.JSON, nullable=False)
    )
    op.create_table(
        "workers",
        _run_id(primary_key=True),
        sa.Column("epoch", sa.Integer, primary_key=True),
        sa.Column("stop_time", sa.DateTime(timezone=True)),
    )
    op.create_table(
        "adapters",
        sa.Column("position", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("specialist", sa.String(63), nullable=False, index=True),
        sa.Column("base", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
    )
    _carry_over()


def _run_id(*, index: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(
        "run_id",
        sa.String(64),
        sa.ForeignKey("runs.run_id", ondelete="CASCADE"),
        nullable=False,
        index=index,
        primary_key=primary_key,
    )


def _carry_over() -> None:
    connection = op.get_bind()
    found = connection.execute(
        sa.text("SELECT run_id, specialist, base, state, body FROM runs ORDER BY create_time, run_id")
    ).all()
    for run in found:
        body = dict(run.body)
        recipe_json = body.pop("recipe_json")
        recipe = json.loads(recipe_json)
        stage = {"recipe": body["recipe"], "method": recipe.get("method", ""), "recipe_json": recipe_json}
        stage |= {"learns_from": "sft", "dataset": body.pop("dataset_manifest")}
        all_weights = recipe.get("adapter", {}).get("kind") == "none"
        body["stages"] = [{**stage, "all_weights": all_weights}]
        connection.execute(
            sa.text("UPDATE runs SET body = :body WHERE run_id = :run_id"),
            {"body": json.dumps(body), "run_id": run.run_id},
        )
        if run.state == "running":
            connection.execute(
                sa.text("INSERT INTO workers (run_id, epoch) VALUES (:run_id, :epoch)"),
                {"run_id": run.run_id, "epoch": body["epoch"]},
            )
        if run.state == "succeeded" and not all_weights:
            connection.execute(
                sa.text(
                    "INSERT INTO adapters (digest, specialist, base, kind) "
                    "VALUES (:digest, :specialist, :base, 'policy') ON CONFLICT DO NOTHING"
                ),
                {"digest": body["adapter_digest"], "specialist": run.specialist, "base": run.base},
            )
