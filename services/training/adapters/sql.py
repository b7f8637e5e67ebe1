"""The runs in PostgreSQL, and what is stated of them through the outbox."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, Engine, Select, delete, insert, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from services.training import wire
from services.training.adapters.bodies import LOG_LINE, PLAN, PROGRESS, columns, to_run
from services.training.adapters.tables import adapters, plans, reports, run_logs, runs, workers
from services.training.domain import LogLine, Progress, Run, RunState, Trained, Worker
from services.training.plans import Plan
from services.training.ports import News, Seen
from tailor.events.envelope import derive_id
from tailor.events.outbox import Outbox
from tailor.sql import transaction

ACTIVE = (RunState.QUEUED.value, RunState.RUNNING.value)
KEPT_LINES = 2000


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
        return None if row is None else to_run(row)

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs older than `before`, newest first."""
        query = select(runs).order_by(runs.c.create_time.desc(), runs.c.run_id.desc()).limit(size)
        if specialist:
            query = query.where(runs.c.specialist == specialist)
        if before is not None:
            query = query.where(tuple_(runs.c.create_time, runs.c.run_id) < before)
        with transaction(self._engine) as connection:
            return [to_run(row) for row in connection.execute(query)]

    def active(self) -> list[Run]:
        """Runs that have not ended, the oldest first."""
        with transaction(self._engine) as connection:
            return [to_run(row) for row in connection.execute(_active())]

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports numbered over `after`, in order."""
        with transaction(self._engine) as connection:
            rows = connection.execute(_reports(run_id, after)).all()
        return [(row.position, PROGRESS.validate_python(row.body)) for row in rows]

    def news(self, run_id: str, seen: Seen) -> News | None:
        """A run as it stands, with what was said of it beyond what was seen."""
        said = select(run_logs).where(run_logs.c.run_id == run_id, run_logs.c.position > seen.line)
        with transaction(self._engine) as connection:
            row = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
            if row is None:
                return None
            lines = connection.execute(said.order_by(run_logs.c.position)).all()
            told = connection.execute(_reports(run_id, seen.report)).all()
        return News(
            to_run(row),
            [PROGRESS.validate_python(one.body) for one in told],
            [LOG_LINE.validate_python(one.body) for one in lines],
            Seen(told[-1].position if told else seen.report, lines[-1].position if lines else seen.line),
        )

    def plan(self, run_id: str) -> Plan | None:
        """The plan that was kept for a run."""
        with transaction(self._engine) as connection:
            body = connection.execute(select(plans.c.body).where(plans.c.run_id == run_id)).scalar_one_or_none()
        return None if body is None else PLAN.validate_python(body)

    def workers(self) -> list[Worker]:
        """The workers that may still live."""
        with transaction(self._engine) as connection:
            rows = connection.execute(select(workers).order_by(workers.c.run_id, workers.c.epoch)).all()
        return [Worker(row.run_id, row.epoch, row.stop_time) for row in rows]

    def newest_adapter(self, specialist: str, base: str, kind: str, rather: str = "") -> str:
        """Digest of the adapter to build upon; empty where there is none."""
        query = select(adapters.c.digest).where(
            adapters.c.specialist == specialist, adapters.c.base == base, adapters.c.kind == kind
        )
        with transaction(self._engine) as connection:
            query = query.order_by((adapters.c.digest == rather).desc(), adapters.c.position.desc()).limit(1)
            found = connection.execute(query).scalar_one_or_none()
        return found or ""


class SqlUnit:
    """One transaction over the runs."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox

    def get(self, run_id: str) -> Run | None:
        """The run, locked."""
        query = select(runs).where(runs.c.run_id == run_id).with_for_update()
        row = self._connection.execute(query).one_or_none()
        return None if row is None else to_run(row)

    def add(self, run: Run) -> bool:
        """Keep a new run; False where one with the same key exists."""
        values = {**columns(run), **asdict(run.key)}
        statement = upsert(runs).values(values).on_conflict_do_nothing().returning(runs.c.run_id)
        return self._connection.execute(statement).one_or_none() is not None

    def save(self, run: Run) -> None:
        """Replace the run."""
        self._connection.execute(update(runs).where(runs.c.run_id == run.run_id).values(columns(run)))

    def active(self) -> list[Run]:
        """Runs that have not ended, the oldest first, locked."""
        return [to_run(row) for row in self._connection.execute(_active().with_for_update())]

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        """Every run of the specialist of which a stage learns from the dataset, the oldest first."""
        learns = or_(runs.c.dataset_digest == dataset_digest, runs.c.rankings_digest == dataset_digest)
        query = select(runs).where(runs.c.specialist == specialist, learns)
        return [to_run(row) for row in self._connection.execute(query.order_by(runs.c.create_time, runs.c.run_id))]

    def add_report(self, run: Run, progress: Progress) -> None:
        """Keep a report."""
        body = PROGRESS.dump_python(progress, mode="json")
        self._connection.execute(insert(reports).values(run_id=run.run_id, body=body))

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Keep lines; of each run the newest 2,000 stay."""
        rows = [{"run_id": run.run_id, "body": LOG_LINE.dump_python(line, mode="json")} for line in lines]
        if not rows:
            return
        self._connection.execute(insert(run_logs), rows)
        mine = select(run_logs.c.position).where(run_logs.c.run_id == run.run_id)
        first = mine.order_by(run_logs.c.position.desc()).offset(KEPT_LINES).limit(1).scalar_subquery()
        self._connection.execute(delete(run_logs).where(run_logs.c.run_id == run.run_id, run_logs.c.position <= first))

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        """Keep the plan of a run that may come."""
        body = PLAN.dump_python(plan, mode="json")
        statement = upsert(plans).values(run_id=run_id, body=body)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id"], set_={"body": body}))

    def save_worker(self, worker: Worker) -> None:
        """Keep a worker."""
        statement = upsert(workers).values(asdict(worker))
        changed = {"stop_time": worker.stop_time}
        self._connection.execute(statement.on_conflict_do_update(index_elements=["run_id", "epoch"], set_=changed))

    def drop_worker(self, worker: Worker) -> None:
        """The worker has ended."""
        one = (workers.c.run_id == worker.run_id, workers.c.epoch == worker.epoch)
        self._connection.execute(delete(workers).where(*one))

    def drop_adapters(self, digests: Iterable[str]) -> None:
        """Build upon these adapters no more."""
        self._connection.execute(delete(adapters).where(adapters.c.digest.in_(list(digests))))

    def state_progress(self, run: Run, progress: Progress) -> None:
        """State `run.progressed.v1`."""
        event_id = derive_id("evt", run.run_id, progress.epoch, progress.phase, progress.step, progress.create_time)
        self._outbox.add(self._connection, "run.progressed.v1", run.run_id, wire.from_progress(run, progress), event_id)

    def state_failure(self, run: Run) -> None:
        """State `run.failed.v1`."""
        # A run that goes on may fail again, which is another event.
        event_id = derive_id("evt", run.run_id, "failed", run.end_time)
        self._outbox.add(self._connection, "run.failed.v1", run.run_id, wire.from_failure(run), event_id)

    def state_adapter(self, run: Run, trained: Trained, now: datetime) -> None:
        """State `adapter.trained.v1`, and keep the adapter to build upon, unless it is all weights."""
        message = wire.from_trained(run, trained, now)
        event_id = derive_id("evt", run.run_id, "trained", run.stage)
        self._outbox.add(self._connection, "adapter.trained.v1", run.key.specialist, message, event_id)
        if not run.current.all_weights:
            values = {
                "digest": trained.digest,
                "specialist": run.key.specialist,
                "base": run.key.base,
                "kind": run.current.kind,
            }
            self._connection.execute(upsert(adapters).values(values).on_conflict_do_nothing())


def _reports(run_id: str, after: int) -> Select[tuple[object, ...]]:
    query = select(reports).where(reports.c.run_id == run_id, reports.c.position > after)
    return query.order_by(reports.c.position)


def _active() -> Select[tuple[object, ...]]:
    return select(runs).where(runs.c.state.in_(ACTIVE)).order_by(runs.c.create_time, runs.c.run_id)
