"""Runs in PostgreSQL, and their events through the outbox."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, Select, and_, delete, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.training import wire
from services.training.adapters.tables import adapters, newest_datasets, plans, reports, run_logs, runs, workers
from services.training.domain import LogLine, NewestDataset, Progress, Run, RunState, StartedWorker, TrainedAdapter
from services.training.plans import Plan
from services.training.ports import Runs, RunUnit, RunUpdate, WatchCursor
from tailor.api.events.v1 import models_pb2
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction
from tailor.storage.ref import Ref

ACTIVE = [state.value for state in RunState if not state.ended]
KEPT_LINES = 2000
KEY = ("specialist", "dataset_digest", "base", "recipe_digest", "parent_digest", "preference_dataset_digest")
# Fields with a column of their own; the rest of a run is in `body`.
COLUMNS = {"run_id", "key", "state", "create_time", "progress"}

RUN: TypeAdapter[Run] = TypeAdapter(Run)
PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
LOG_LINE: TypeAdapter[LogLine] = TypeAdapter(LogLine)


class SqlRuns(Runs):
    """All runs of the installation. Thread-safe."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox

    @contextmanager
    def unit(self) -> Iterator["SqlUnit"]:
        """Open a transaction."""
        with transaction(self._engine) as connection:
            yield SqlUnit(connection, self._outbox)

    def find(self, run_id: str) -> Run | None:
        with transaction(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
        return None if row is None else to_run(row)

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        query = select(runs).order_by(runs.c.create_time.desc(), runs.c.run_id.desc()).limit(size)
        if specialist:
            query = query.where(runs.c.specialist == specialist)
        if before is not None:
            query = query.where(tuple_(runs.c.create_time, runs.c.run_id) < before)
        with transaction(self._engine) as connection:
            return [to_run(row) for row in connection.execute(query)]

    def active(self) -> list[Run]:
        with transaction(self._engine) as connection:
            return [to_run(row) for row in connection.execute(_select_active())]

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        with transaction(self._engine) as connection:
            rows = connection.execute(_select_reports(run_id, after)).all()
        return [(row.position, wire.read_progress(row.message)) for row in rows]

    def news(self, run_id: str, cursor: WatchCursor) -> RunUpdate | None:
        new_lines = select(run_logs).where(run_logs.c.run_id == run_id, run_logs.c.position > cursor.line)
        with transaction(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
            if row is None:
                return None
            lines = connection.execute(new_lines.order_by(run_logs.c.position)).all()
            new_reports = connection.execute(_select_reports(run_id, cursor.report)).all()
        return RunUpdate(
            to_run(row),
            [wire.read_progress(report.message) for report in new_reports],
            [LOG_LINE.validate_python(line.body) for line in lines],
            WatchCursor(
                new_reports[-1].position if new_reports else cursor.report,
                lines[-1].position if lines else cursor.line,
            ),
        )

    def plan(self, run_id: str) -> Plan | None:
        with transaction(self._engine) as connection:
            body = connection.execute(select(plans.c.body).where(plans.c.run_id == run_id)).scalar_one_or_none()
        return None if body is None else PLAN.validate_python(body)

    def workers(self) -> list[StartedWorker]:
        with transaction(self._engine) as connection:
            rows = connection.execute(select(workers).order_by(workers.c.run_id, workers.c.epoch)).all()
        return [StartedWorker(row.run_id, row.epoch, row.stop_time) for row in rows]

    def newest_adapter(self, specialist: str, base: str, kind: str) -> str:
        query = select(adapters.c.digest).where(
            adapters.c.specialist == specialist, adapters.c.base == base, adapters.c.kind == kind
        )
        query = query.order_by(adapters.c.position.desc()).limit(1)
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar_one_or_none() or ""


class SqlUnit(RunUnit):
    """One transaction over the runs. Not thread-safe."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def get(self, run_id: str) -> Run | None:
        query = select(runs).where(runs.c.run_id == run_id).with_for_update()
        row = self._connection.execute(query).one_or_none()
        return None if row is None else to_run(row)

    def add(self, run: Run) -> bool:
        values = {**to_columns(run), **asdict(run.key)}
        statement = upsert(runs).values(values).on_conflict_do_nothing().returning(runs.c.run_id)
        return self._connection.execute(statement).one_or_none() is not None

    def save(self, run: Run) -> None:
        self._connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(to_columns(run)))

    def active(self) -> list[Run]:
        return [to_run(row) for row in self._connection.execute(_select_active().with_for_update())]

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        learns = or_(runs.c.dataset_digest == dataset_digest, runs.c.rankings_digest == dataset_digest)
        query = select(runs).where(runs.c.specialist == specialist, learns)
        return [to_run(row) for row in self._connection.execute(query.order_by(runs.c.create_time, runs.c.run_id))]

    def save_newest(self, dataset: NewestDataset) -> None:
        table, ref = newest_datasets, dataset.manifest
        values = {
            "specialist": dataset.specialist,
            "kind": dataset.kind,
            "digest": ref.sha256,
            "uri": ref.uri,
            "size_bytes": ref.size_bytes,
            "create_time": dataset.create_time,
        }
        statement = upsert(table).values(**values, number=1)
        changed = {**values, "number": table.c.number + 1}
        newer = and_(table.c.create_time <= dataset.create_time, table.c.digest != ref.sha256)
        key = ["specialist", "kind"]
        self._connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed, where=newer))

    def newest_datasets(self, specialist: str) -> list[NewestDataset]:
        table = newest_datasets
        query = select(table).where(table.c.specialist == specialist, table.c.digest != "").order_by(table.c.kind)
        return [
            NewestDataset(
                row.specialist, row.kind, Ref(row.uri, row.digest, row.size_bytes), row.create_time, row.number
            )
            for row in self._connection.execute(query)
        ]

    def drop_datasets(self, digests: Iterable[str]) -> None:
        table = newest_datasets
        self._connection.execute(update(table).where(table.c.digest.in_(list(digests))).values(digest=""))

    def has_adapter(self, digest: str) -> bool:
        query = select(adapters.c.digest).where(adapters.c.digest == digest)
        return self._connection.execute(query).one_or_none() is not None

    def add_report(self, run: Run, progress: Progress) -> None:
        message = wire.from_progress(run, progress).SerializeToString()
        self._connection.execute(insert(reports).values(run_id=run.run_id, message=message))

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        rows = [{"run_id": run.run_id, "body": LOG_LINE.dump_python(line, mode="json")} for line in lines]
        if not rows:
            return
        self._connection.execute(insert(run_logs), rows)
        positions = select(run_logs.c.position).where(run_logs.c.run_id == run.run_id)
        newest_dropped = positions.order_by(run_logs.c.position.desc()).offset(KEPT_LINES).limit(1).scalar_subquery()
        self._connection.execute(
            delete(run_logs).where(run_logs.c.run_id == run.run_id, run_logs.c.position <= newest_dropped)
        )

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        body = PLAN.dump_python(plan, mode="json")
        statement = upsert(plans).values(run_id=run_id, body=body)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_={"body": body}))

    def save_worker(self, worker: StartedWorker) -> None:
        statement = upsert(workers).values(asdict(worker))
        changed = {"stop_time": worker.stop_time}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "epoch"], set_=changed))

    def drop_worker(self, worker: StartedWorker) -> None:
        key = (workers.c.run_id == worker.run_id, workers.c.epoch == worker.epoch)
        self._connection.execute(delete(workers).where(*key))

    def drop_adapters(self, digests: Iterable[str]) -> None:
        self._connection.execute(delete(adapters).where(adapters.c.digest.in_(list(digests))))

    def publish_progress(self, run: Run, progress: Progress) -> None:
        message = wire.from_progress(run, progress)
        moment = message.create_time.ToJsonString()
        event_id = derive_id("evt", run.run_id, message.epoch, message.phase, message.step, moment)
        self._outbox.add(self._connection, "run.progressed.v1", run.run_id, message, event_id)

    def publish_failure(self, run: Run) -> None:
        # A resumed run may fail again, which is another event.
        event_id = derive_id("evt", run.run_id, "failed", run.end_time)
        self._outbox.add(self._connection, "run.failed.v1", run.run_id, wire.from_failure(run), event_id)

    def publish_adapter(self, run: Run, trained: TrainedAdapter, now: datetime) -> None:
        message = wire.from_trained(run, trained, now)
        event_id = derive_id("evt", run.run_id, "trained", run.stage)
        self._outbox.add(self._connection, "adapter.trained.v1", run.key.specialist, message, event_id)
        if not run.current.all_weights:
            self._record_adapter(message, run.current.kind)

    def _record_adapter(self, message: models_pb2.AdapterTrained, kind: str) -> None:
        values = {"digest": message.digest, "specialist": message.specialist, "base": message.base, "kind": kind}
        self._connection.execute(upsert(adapters).values(values).on_conflict_do_nothing())


def to_columns(run: Run) -> dict[str, Any]:
    """The row of a run, without its key, which never changes."""
    return {
        "run_id": run.run_id,
        "state": run.state.value,
        "create_time": run.create_time,
        "rankings_digest": run.preferences,
        "progress": wire.from_progress(run, run.progress).SerializeToString() if run.progress else None,
        "body": RUN.dump_python(run, mode="json", exclude=COLUMNS),
    }


def to_run(row: Row[Any]) -> Run:
    key = {name: getattr(row, name) for name in KEY}
    progress = None if row.progress is None else wire.read_progress(row.progress)
    columns = {
        "run_id": row.run_id,
        "key": key,
        "state": row.state,
        "create_time": row.create_time,
        "progress": progress,
    }
    return RUN.validate_python({**row.body, **columns})


def _select_reports(run_id: str, after: int) -> Select[tuple[object, ...]]:
    query = select(reports).where(reports.c.run_id == run_id, reports.c.position > after)
    return query.order_by(reports.c.position)


def _select_active() -> Select[tuple[object, ...]]:
    return select(runs).where(runs.c.state.in_(ACTIVE)).order_by(runs.c.create_time, runs.c.run_id)
