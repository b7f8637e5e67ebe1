"""Runs in PostgreSQL, and their events through the outbox. Every method may raise Unavailable."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Engine, Row, Table, and_, or_, select

from services.training import wire
from services.training.adapters import tables
from services.training.domain import LogLine, NewestDataset, Progress, Run, RunState, StartedWorker, TrainedAdapter
from services.training.plans import Plan
from tailor.api.training.v1.training_pb2 import ListRunsRequest
from tailor.errors import NotFound, Reason
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.listing import Listing, ListPage
from tailor.rows import Rows
from tailor.sql import transaction

ACTIVE = [state for state in RunState if not state.ended]
KEPT_LINES = 2000

RUN = TypeAdapter(Run)
PLAN = TypeAdapter(Plan)
LOG_LINE = TypeAdapter(LogLine)


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


class RunRows(Rows[Run]):
    """Rows of runs: complete in `body` and `progress`, and what is searched for in columns."""

    def __init__(self, database: Engine | Connection) -> None:
        super().__init__(database, tables.runs, Run)
        self.oldest_first = (self.c.create_time, self.c.run_id)

    def read(self, row: Row[Any], **given: Any) -> Run:
        progress = None if row.progress is None else wire.read_progress(row.progress)
        return RUN.validate_python({**row.body, "progress": progress, **given})

    def get(self, run_id: str, *, lock: bool = False) -> Run:
        """A run. Raises NotFound (UNKNOWN_RUN)."""
        run = self.lock(run_id=run_id) if lock else self.find(run_id=run_id)
        if run is None:
            raise NotFound(Reason.UNKNOWN_RUN, "There is no such run.", run_id=run_id)
        return run


class SqlRuns:
    """All runs of the installation. Thread-safe."""

    def __init__(self, engine: Engine, outbox: Outbox) -> None:
        self._engine = engine
        self._outbox = outbox
        self._runs = RunRows(engine)

    @contextmanager
    def unit(self) -> Iterator["SqlUnit"]:
        """Open a transaction."""
        with transaction(self._engine) as connection:
            yield SqlUnit(connection, self._outbox)

    def find(self, run_id: str) -> Run | None:
        """The run's current state, unlocked."""
        return self._runs.find(run_id=run_id)

    def get(self, run_id: str) -> Run:
        """The run's current state, unlocked. Raises NotFound (UNKNOWN_RUN)."""
        return self._runs.get(run_id)

    def page(self, specialist: str = "", size: int | None = None) -> list[Run]:
        """The newest runs, newest first; of all specialists if the name is empty."""
        newest_first = tuple(column.desc() for column in self._runs.oldest_first)
        return self._runs.all(order=newest_first, limit=size, **({"specialist": specialist} if specialist else {}))

    def list_page(self, request: ListRunsRequest, specialists: Collection[str]) -> ListPage[Run]:
        """A page of runs, newest first; without specialists, of all of them."""
        rows = self._runs
        query = rows.select(**({"specialist": [*specialists]} if specialists else {}))
        return Listing(rows, request, rows.c.run_id, order_by="create_time desc").page(query)

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, unlocked."""
        return self._runs.all(order=self._runs.oldest_first, state=ACTIVE)

    def awaiting_approval(self) -> list[Run]:
        """Runs that wait for approval, oldest first."""
        return self._runs.all(order=self._runs.oldest_first, state=RunState.AWAITING_APPROVAL)

    def active_since(self, specialist: str, moment: datetime) -> list[Run]:
        """The specialist's runs that have not ended, or were created after the moment."""
        columns = self._runs.c
        recent = or_(columns.create_time > moment, columns.state.in_([state.value for state in ACTIVE]))
        return self._runs.all(recent, specialist=specialist)

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports with a number over `after`, in order."""
        return [(row.position, wire.read_progress(row.message)) for row in self._follow(tables.reports, run_id, after)]

    def news(self, run_id: str, cursor: WatchCursor) -> RunUpdate:
        """The run with everything after the cursor. Raises NotFound (UNKNOWN_RUN)."""
        run = self.get(run_id)
        lines = self._follow(tables.run_logs, run_id, cursor.line)
        reports = self.reports(run_id, cursor.report)
        return RunUpdate(
            run,
            [progress for _, progress in reports],
            [LOG_LINE.validate_python(line.body) for line in lines],
            WatchCursor(
                reports[-1][0] if reports else cursor.report,
                lines[-1].position if lines else cursor.line,
            ),
        )

    def _follow(self, table: Table, run_id: str, after: int) -> list[Row[Any]]:
        position = table.c.position
        return Rows(self._engine, table, Row).all(position > after, run_id=run_id, order=position)

    def plan(self, run_id: str) -> Plan | None:
        """The stored plan of a run, which may not exist yet."""
        body = Rows(self._engine, tables.plans, Row).value(tables.plans.c.body, run_id=run_id)
        return None if body is None else PLAN.validate_python(body)

    def workers(self) -> list[StartedWorker]:
        """Workers that may still be alive."""
        columns = tables.workers.c
        return Rows(self._engine, tables.workers, StartedWorker).all(order=(columns.run_id, columns.epoch))

    def newest_adapter(self, specialist: str, base: str, kind: str) -> str:
        """Digest of the specialist's newest adapter on the base to build on. Empty if there is none."""
        adapters = Rows(self._engine, tables.adapters, Row)
        newest = adapters.newest(specialist=specialist, base=base, kind=kind)
        return newest.digest if newest else ""


class SqlUnit:
    """One transaction over the runs. Events are published when it commits. Not thread-safe."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self._runs = RunRows(connection)
        self._workers = Rows(connection, tables.workers, StartedWorker)
        self._adapters = Rows(connection, tables.adapters, Row)
        self._newest = Rows(connection, tables.newest_datasets, NewestDataset)

    def get(self, run_id: str) -> Run:
        """The run, locked until the transaction ends. Raises NotFound (UNKNOWN_RUN)."""
        return self._runs.get(run_id, lock=True)

    def add(self, run: Run) -> bool:
        """Insert a new run; False if one with the same key exists."""
        return self._runs.add(**_to_columns(run))

    def save(self, run: Run) -> None:
        """Replace the run."""
        self._runs.update(_to_columns(run), run_id=run.run_id)

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, locked."""
        query = self._runs.select(state=ACTIVE).order_by(*self._runs.oldest_first)
        return self._runs.fetch(query.with_for_update())

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        """The specialist's runs with a stage that learns from the dataset, oldest first."""
        columns = self._runs.c
        learns = or_(columns.dataset_digest == dataset_digest, columns.rankings_digest == dataset_digest)
        return self._runs.all(learns, specialist=specialist, order=self._runs.oldest_first)

    def save_newest(self, dataset: NewestDataset) -> None:
        """Record a dataset as the newest of its kind, and count it, unless a newer one is recorded. Idempotent."""
        columns = self._newest.c
        newer = and_(columns.create_time <= dataset.create_time, columns.digest != dataset.digest)
        counted = {"number": columns.number + 1}
        self._newest.upsert(dataset, where=newer, computed=counted, digest=dataset.digest)

    def newest_datasets(self, specialist: str) -> list[NewestDataset]:
        """The specialist's newest dataset of each kind, without those that were dropped."""
        columns = self._newest.c
        return self._newest.all(columns.digest != "", specialist=specialist, order=columns.kind)

    def drop_datasets(self, digests: Collection[str]) -> None:
        """These datasets are no longer the newest of their kind; none is until the next one. The count goes on."""
        self._newest.update({"digest": ""}, digest=[*digests])

    def has_adapter(self, digest: str) -> bool:
        """True if later stages and runs may build on the adapter."""
        return self._adapters.has(digest=digest)

    def drop_adapters(self, digests: Collection[str]) -> None:
        """No longer offer these adapters to build on."""
        self._adapters.delete(digest=[*digests])

    def add_report(self, run: Run, progress: Progress) -> None:
        """Store a report for watchers."""
        message = wire.from_progress(run, progress).SerializeToString()
        Rows(self._connection, tables.reports, Row).insert(run_id=run.run_id, message=message)

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines; only the newest 2,000 of a run are kept."""
        logs = Rows(self._connection, tables.run_logs, Row)
        logs.add_all({"run_id": run.run_id, "body": LOG_LINE.dump_python(line, mode="json")} for line in lines)
        positions = select(logs.c.position).where(logs.c.run_id == run.run_id).order_by(logs.c.position.desc())
        newest_dropped = positions.offset(KEPT_LINES).limit(1).scalar_subquery()
        logs.delete(logs.c.position <= newest_dropped, run_id=run.run_id)

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        """Store the plan of a run that may be created later. Replaces an earlier one."""
        body = PLAN.dump_python(plan, mode="json")
        Rows(self._connection, tables.plans, Row).upsert(run_id=run_id, body=body)

    def save_worker(self, worker: StartedWorker) -> None:
        """Insert or update a started worker."""
        self._workers.upsert(worker)

    def drop_worker(self, worker: StartedWorker) -> None:
        """Forget a worker that has ended."""
        self._workers.delete(run_id=worker.run_id, epoch=worker.epoch)

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
            key = run.key
            self._adapters.add(specialist=key.specialist, base=key.base, kind=run.current.kind, digest=trained.digest)


def _to_columns(run: Run) -> dict[str, Any]:
    return {
        **asdict(run.key),
        "run_id": run.run_id,
        "state": run.state,
        "create_time": run.create_time,
        "rankings_digest": run.preferences,
        "progress": wire.from_progress(run, run.progress).SerializeToString() if run.progress else None,
        "body": RUN.dump_python(run, mode="json", exclude={"progress"}),
        **wire.list_run(run),
    }
