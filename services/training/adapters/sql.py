"""Runs in PostgreSQL, and their events through the outbox. Every method may raise Unavailable."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, Select, and_, delete, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.training import wire
from services.training.adapters.tables import adapters, newest_datasets, plans, reports, run_logs, runs, workers
from services.training.domain import LogLine, NewestDataset, Progress, Run, RunState, StartedWorker, TrainedAdapter
from services.training.plans import Plan
from tailor.api.training.v1.training_pb2 import ListRunsRequest
from tailor.errors import NotFound, Reason
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction

ACTIVE = [state.value for state in RunState if not state.ended]
KEPT_LINES = 2000

RUN = TypeAdapter(Run)
PLAN = TypeAdapter(Plan)
LOG_LINE = TypeAdapter(LogLine)
NEWEST = TypeAdapter(NewestDataset)


@dataclass(frozen=True)
class WatchCursor:
    """The last report and the last log line that a watcher has seen, by number."""

    report: int = 0
    line: int = 0


@dataclass(frozen=True)
class RunUpdate:
    """A run with the reports and log lines that are new to a watcher.

    The run was read before them, so nothing follows if it has ended.
    """

    run: Run
    reports: Sequence[Progress]
    lines: Sequence[LogLine]
    cursor: WatchCursor


class SqlRuns:
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
        """The run's current state, unlocked."""
        return next(iter(self._read(select(runs).where(runs.c.run_id == run_id))), None)

    def get(self, run_id: str) -> Run:
        """The run's current state, unlocked. Raises NotFound (UNKNOWN_RUN)."""
        return _known(self.find(run_id), run_id)

    def page(self, specialist: str = "", size: int | None = None) -> list[Run]:
        """The newest runs, newest first; of all specialists if the name is empty."""
        query = select(runs).order_by(runs.c.create_time.desc(), runs.c.run_id.desc()).limit(size)
        return self._read(query.where(runs.c.specialist == specialist) if specialist else query)

    def list_page(self, request: ListRunsRequest, specialists: Collection[str]) -> ListPage[Run]:
        """A page of runs, newest first; without specialists, of all of them."""
        rows = Rows(self._engine, runs, Row)
        query = rows.select(**({"specialist": [*specialists]} if specialists else {}))
        return Listing(rows, request, rows.c.run_id, order_by="create_time desc").page(query, read=to_run)

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, unlocked."""
        return self._read(_select_active())

    def active_since(self, specialist: str, moment: datetime) -> list[Run]:
        """The specialist's runs that have not ended, or were created after the moment."""
        recent = or_(runs.c.create_time > moment, runs.c.state.in_(ACTIVE))
        return self._read(select(runs).where(runs.c.specialist == specialist, recent))

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports with a number over `after`, in order."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_select_reports(run_id, after)).all()
        return [(row.position, wire.read_progress(row.message)) for row in rows]

    def news(self, run_id: str, cursor: WatchCursor) -> RunUpdate:
        """The run with everything after the cursor. Raises NotFound (UNKNOWN_RUN)."""
        new_lines = select(run_logs).where(run_logs.c.run_id == run_id, run_logs.c.position > cursor.line)
        run = self.get(run_id)
        with transaction(self._engine) as connection:
            lines = connection.execute(new_lines.order_by(run_logs.c.position)).all()
            new_reports = connection.execute(_select_reports(run_id, cursor.report)).all()
        return RunUpdate(
            run,
            [wire.read_progress(report.message) for report in new_reports],
            [LOG_LINE.validate_python(line.body) for line in lines],
            WatchCursor(
                new_reports[-1].position if new_reports else cursor.report,
                lines[-1].position if lines else cursor.line,
            ),
        )

    def plan(self, run_id: str) -> Plan | None:
        """The stored plan of a run, which may not exist yet."""
        with transaction(self._engine) as connection:
            body = connection.execute(select(plans.c.body).where(plans.c.run_id == run_id)).scalar_one_or_none()
        return None if body is None else PLAN.validate_python(body)

    def workers(self) -> list[StartedWorker]:
        """Workers that may still be alive."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(workers).order_by(workers.c.run_id, workers.c.epoch)).all()
        return [StartedWorker(*row) for row in rows]

    def newest_adapter(self, specialist: str, base: str, kind: str) -> str:
        """Digest of the specialist's newest adapter on the base to build on. Empty if there is none."""
        query = select(adapters.c.digest).where(
            adapters.c.specialist == specialist, adapters.c.base == base, adapters.c.kind == kind
        )
        query = query.order_by(adapters.c.position.desc()).limit(1)
        with transaction(self._engine) as connection:
            return connection.execute(query).scalar_one_or_none() or ""

    def _read(self, query: Select[tuple[object, ...]]) -> list[Run]:
        with transaction(self._engine) as connection:
            return [to_run(row) for row in connection.execute(query)]


class SqlUnit:
    """One transaction over the runs. Events are published when it commits. Not thread-safe."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def get(self, run_id: str) -> Run:
        """The run, locked until the transaction ends. Raises NotFound (UNKNOWN_RUN)."""
        query = select(runs).where(runs.c.run_id == run_id).with_for_update()
        return _known(next(iter(self._read(query)), None), run_id)

    def add(self, run: Run) -> bool:
        """Insert a new run; False if one with the same key exists."""
        statement = upsert(runs).values(to_columns(run)).on_conflict_do_nothing().returning(runs.c.run_id)
        return self._connection.execute(statement).one_or_none() is not None

    def save(self, run: Run) -> None:
        """Replace the run."""
        self._connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(to_columns(run)))

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, locked."""
        return self._read(_select_active().with_for_update())

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        """The specialist's runs with a stage that learns from the dataset, oldest first."""
        learns = or_(runs.c.dataset_digest == dataset_digest, runs.c.rankings_digest == dataset_digest)
        query = select(runs).where(runs.c.specialist == specialist, learns)
        return self._read(query.order_by(runs.c.create_time, runs.c.run_id))

    def save_newest(self, dataset: NewestDataset) -> None:
        """Record a dataset as the newest of its kind, and count it, unless a newer one is recorded. Idempotent."""
        table = newest_datasets
        values = {**asdict(dataset), "digest": dataset.digest}
        changed = {**values, "number": table.c.number + 1}
        newer = and_(table.c.create_time <= dataset.create_time, table.c.digest != dataset.digest)
        statement = upsert(table).values(values)
        key = ["specialist", "kind"]
        self._connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed, where=newer))

    def newest_datasets(self, specialist: str) -> list[NewestDataset]:
        """The specialist's newest dataset of each kind, without those that were dropped."""
        table = newest_datasets
        query = select(table).where(table.c.specialist == specialist, table.c.digest != "").order_by(table.c.kind)
        return [NEWEST.validate_python(dict(row)) for row in self._connection.execute(query).mappings()]

    def drop_datasets(self, digests: Iterable[str]) -> None:
        """These datasets are no longer the newest of their kind; none is until the next one. The count goes on."""
        table = newest_datasets
        self._connection.execute(update(table).where(table.c.digest.in_(list(digests))).values(digest=""))

    def has_adapter(self, digest: str) -> bool:
        """True if later stages and runs may build on the adapter."""
        query = select(adapters.c.digest).where(adapters.c.digest == digest)
        return self._connection.execute(query).one_or_none() is not None

    def drop_adapters(self, digests: Iterable[str]) -> None:
        """No longer offer these adapters to build on."""
        self._connection.execute(delete(adapters).where(adapters.c.digest.in_(list(digests))))

    def add_report(self, run: Run, progress: Progress) -> None:
        """Store a report for watchers."""
        message = wire.from_progress(run, progress).SerializeToString()
        self._connection.execute(insert(reports).values(run_id=run.run_id, message=message))

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines; only the newest 2,000 of a run are kept."""
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
        """Store the plan of a run that may be created later. Replaces an earlier one."""
        body = PLAN.dump_python(plan, mode="json")
        statement = upsert(plans).values(run_id=run_id, body=body)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_={"body": body}))

    def save_worker(self, worker: StartedWorker) -> None:
        """Insert or update a started worker."""
        statement = upsert(workers).values(asdict(worker))
        changed = {"stop_time": worker.stop_time}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "epoch"], set_=changed))

    def drop_worker(self, worker: StartedWorker) -> None:
        """Forget a worker that has ended."""
        key = (workers.c.run_id == worker.run_id, workers.c.epoch == worker.epoch)
        self._connection.execute(delete(workers).where(*key))

    def publish_progress(self, run: Run, progress: Progress) -> None:
        """Publish `run.progressed.v1`."""
        message = wire.from_progress(run, progress)
        moment = message.create_time.ToJsonString()
        event_id = derive_id("evt", run.run_id, message.epoch, message.phase, message.step, moment)
        self._outbox.add(self._connection, "run.progressed.v1", run.run_id, message, event_id)

    def publish_failure(self, run: Run) -> None:
        """Publish `run.failed.v1` with the run's reason."""
        # A resumed run may fail again, which is another event.
        event_id = derive_id("evt", run.run_id, "failed", run.end_time)
        self._outbox.add(self._connection, "run.failed.v1", run.run_id, wire.from_failure(run), event_id)

    def publish_adapter(self, run: Run, trained: TrainedAdapter, now: datetime) -> None:
        """Publish `adapter.trained.v1` for the run's current stage, and record the adapter as one to build on."""
        message = wire.from_trained(run, trained, now)
        event_id = derive_id("evt", run.run_id, "trained", run.stage)
        self._outbox.add(self._connection, "adapter.trained.v1", run.key.specialist, message, event_id)
        if not run.current.all_weights:
            values = {"specialist": run.key.specialist, "base": run.key.base, "kind": run.current.kind}
            statement = upsert(adapters).values(**values, digest=trained.digest)
            self._connection.execute(statement.on_conflict_do_nothing())

    def _read(self, query: Select[tuple[object, ...]]) -> list[Run]:
        return [to_run(row) for row in self._connection.execute(query)]


def to_columns(run: Run) -> dict[str, Any]:
    """The row of a run: complete in `body` and `progress`, and what is searched for in columns."""
    return {
        **asdict(run.key),
        "run_id": run.run_id,
        "state": run.state.value,
        "create_time": run.create_time,
        "rankings_digest": run.preferences,
        "progress": wire.from_progress(run, run.progress).SerializeToString() if run.progress else None,
        "body": RUN.dump_python(run, mode="json", exclude={"progress"}),
        **wire.list_run(run),
    }


def to_run(row: Row[Any]) -> Run:
    progress = None if row.progress is None else wire.read_progress(row.progress)
    return RUN.validate_python({**row.body, "progress": progress})


def _known(run: Run | None, run_id: str) -> Run:
    if run is None:
        raise NotFound(Reason.UNKNOWN_RUN, "There is no such run.", run_id=run_id)
    return run


def _select_reports(run_id: str, after: int) -> Select[tuple[object, ...]]:
    query = select(reports).where(reports.c.run_id == run_id, reports.c.position > after)
    return query.order_by(reports.c.position)


def _select_active() -> Select[tuple[object, ...]]:
    return select(runs).where(runs.c.state.in_(ACTIVE)).order_by(runs.c.create_time, runs.c.run_id)
