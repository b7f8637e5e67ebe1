"""Runs, reports, plans and log lines as JSON, and back. A field that a kept one has not is as the class says."""

from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row

from services.training.domain import LogLine, Progress, Run
from services.training.plans import Plan

COLUMNS = {"run_id", "key", "state", "create_time"}
KEY = ("specialist", "dataset_digest", "base", "recipe_digest", "parent_digest", "preference_dataset_digest")

RUN: TypeAdapter[Run] = TypeAdapter(Run)
PROGRESS: TypeAdapter[Progress] = TypeAdapter(Progress)
PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
LOG_LINE: TypeAdapter[LogLine] = TypeAdapter(LogLine)


def columns(run: Run) -> dict[str, Any]:
    """What a run's row holds, but for its key, which never changes."""
    return {
        "run_id": run.run_id,
        "state": run.state.value,
        "create_time": run.create_time,
        "rankings_digest": run.preferences,
        "body": RUN.dump_python(run, mode="json", exclude=COLUMNS),
    }


def to_run(row: Row[Any]) -> Run:
    """A run from its row."""
    key = {name: getattr(row, name) for name in KEY}
    return RUN.validate_python(
        {**row.body, "run_id": row.run_id, "key": key, "state": row.state, "create_time": row.create_time}
    )
