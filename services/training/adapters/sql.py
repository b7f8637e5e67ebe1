"""The runs in PostgreSQL, and what is stated of them through the outbox."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, insert, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.training import wire
from services.training.adapters.tables import reports, runs
from services.training.domain import Progress, Run, RunKey, RunState, Trained
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref

ACTIVE = (RunState.QUEUED.value, RunState.RUNNING.value)
MOMENTS = ("lease_expires", "not_before", "last_event", "start_time", "end_time")
COLUMNS = ("run_id", "state", "create_time")


class SqlRuns:
    """All runs of the installation."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    @contextmanager
    def unit(self) -> Iterator["SqlUnit"]:
        """A transaction."""
        with transaction(self._engine) as connection:
            yield SqlUnit(connection, self._outbox)

    def find(self, run_id: str) -> Run | None:
        """A run as it stands."""
        with transaction(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
        return None if row is None else _to_run(row)

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs older than `before`, newest first."""
        query = select(runs).order_by(runs.c.create_time.desc(), runs.c.run_id.desc()).limit(size)
        if specialist:
            query = query.where(runs.c.specialist == specialist)
        if before is not None:
            query = query.where(tuple_(runs.c.create_time, runs.c.run_id) < before)
        with transaction(self._engine) as connection:
            return [_to_run(row) for row in connection.execute(query)]

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports numbered over `after`, in order."""
        query = select(reports).where(reports.c.run_id == run_id, reports.c.position > after)
        with transaction(self._engine) as connection:
            rows = connection.execute(query.order_by(reports.c.position)).all()
        return [(row.position, _to_progress(row.body)) for row in rows]


class SqlUnit:
    """One transaction over the runs."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def get(self, run_id: str) -> Run | None:
        """The run, locked."""
        query = select(runs).where(runs.c.run_id == run_id).with_for_update()
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _to_run(row)

    def add(self, run: Run) -> bool:
        """Keep a new run; False where one with the same key exists."""
        values = {**_columns(run), **asdict(run.key)}
        statement = upsert(runs).values(values).on_conflict_do_nothing().returning(runs.c.run_id)
        return self._connection.execute(statement).one_or_none() is not None

    def save(self, run: Run) -> None:
        """Replace the run."""
        self._connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(_columns(run)))

    def active(self) -> list[Run]:
        """Runs that have not ended, the oldest first, locked."""
        query = select(runs).where(runs.c.state.in_(ACTIVE)).order_by(runs.c.create_time, runs.c.run_id)
        return [_to_run(row) for row in self._connection.execute(query.with_for_update())]

    def add_report(self, run: Run, progress: Progress) -> None:
        """Keep a report."""
        self._connection.execute(insert(reports).values(run_id=run.run_id, body=_plain(asdict(progress))))

    def state_progress(self, run: Run, progress: Progress) -> None:
        """State `run.progressed.v1`."""
        event_id = derive_id("evt", run.run_id, progress.epoch, progress.phase, progress.step, progress.create_time)
        self._outbox.add(self._connection, "run.progressed.v1", run.run_id, wire.from_progress(run, progress), event_id)

    def state_failure(self, run: Run) -> None:
        """State `run.failed.v1`."""
        event_id = derive_id("evt", run.run_id, "failed")
        self._outbox.add(self._connection, "run.failed.v1", run.run_id, wire.from_failure(run), event_id)

    def state_adapter(self, run: Run, trained: Trained) -> None:
        """State `adapter.trained.v1`."""
        message = wire.from_trained(run, trained)
        event_id = derive_id("evt", run.run_id, "trained")
        self._outbox.add(self._connection, "adapter.trained.v1", run.key.specialist, message, event_id)


def _columns(run: Run) -> dict[str, Any]:
    skipped = {*COLUMNS, "key"}
    body = {field.name: getattr(run, field.name) for field in fields(run) if field.name not in skipped}
    body["dataset_manifest"] = asdict(run.dataset_manifest)
    body["progress"] = _plain(asdict(run.progress)) if run.progress else None
    return {"run_id": run.run_id, "state": run.state.value, "create_time": run.create_time, "body": _plain(body)}


def _plain(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in body.items()}


def _to_run(row: Row[Any]) -> Run:
    body = dict(row.body)
    for name in MOMENTS:
        body[name] = datetime.fromisoformat(body[name]) if body[name] else None
    body["dataset_manifest"] = Ref(**body["dataset_manifest"])
    body["progress"] = _to_progress(body["progress"]) if body["progress"] else None
    key = RunKey(row.specialist, row.dataset_digest, row.base, row.recipe_digest)
    return Run(run_id=row.run_id, key=key, state=RunState(row.state), create_time=row.create_time, **body)


def _to_progress(body: dict[str, Any]) -> Progress:
    return Progress(**{**body, "create_time": datetime.fromisoformat(body["create_time"])})
