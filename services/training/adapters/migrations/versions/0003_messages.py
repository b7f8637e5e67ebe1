"""Progress reports are stored as serialised RunProgressed messages; a stage has a result."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op
from google.protobuf.json_format import ParseDict

from tailor.api.events.v1 import models_pb2

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Convert the reports and each run's latest progress, and rename a stage's `made` to `result`."""
    op.add_column("runs", sa.Column("progress", sa.LargeBinary))
    op.add_column("reports", sa.Column("message", sa.LargeBinary))
    connection = op.get_bind()
    _convert_runs(connection)
    _convert_reports(connection)
    op.alter_column("reports", "message", nullable=False)
    op.drop_column("reports", "body")


def _convert_runs(connection: sa.Connection) -> None:
    for run in connection.execute(sa.text("SELECT run_id, specialist, body FROM runs")).all():
        body = dict(run.body)
        progress = body.pop("progress", None)
        for stage in body["stages"]:
            stage["result"] = stage.pop("made", None)
        connection.execute(
            sa.text("UPDATE runs SET body = :body, progress = :progress WHERE run_id = :run_id"),
            {
                "body": json.dumps(body),
                "progress": _to_message(run.run_id, run.specialist, progress) if progress else None,
                "run_id": run.run_id,
            },
        )


def _convert_reports(connection: sa.Connection) -> None:
    query = "SELECT position, run_id, specialist, reports.body AS body FROM reports JOIN runs USING (run_id)"
    for report in connection.execute(sa.text(query)).all():
        connection.execute(
            sa.text("UPDATE reports SET message = :message WHERE position = :position"),
            {"message": _to_message(report.run_id, report.specialist, report.body), "position": report.position},
        )


def _to_message(run_id: str, specialist: str, progress: dict[str, Any]) -> bytes:
    fields = {**progress, "run_id": run_id, "specialist": specialist}
    return ParseDict(fields, models_pb2.RunProgressed(), ignore_unknown_fields=True).SerializeToString()
