"""Jobs: work that is done later, in a table of the service's database, and the loop that runs what is due.

The process that runs a job holds it under a lease and an epoch, which no earlier or later holder has. The lease of a killed or paused
process ends, and another replica runs the job again. So a handler may run twice, and all that it writes goes into transactions that begin
with `HeldJob.check`: they fail once another one holds the job.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Delete,
    Engine,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    Update,
    and_,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy import Sequence as DatabaseSequence
from sqlalchemy.dialects.postgresql import JSONB, insert

from tailor.errors import TailorError, Unavailable
from tailor.events.faults import Faults
from tailor.logging import get_logger
from tailor.retry import MAX_RETRY_AFTER_SECONDS, Stopped, retry
from tailor.sql import transaction

log = get_logger(__name__)

LEASE_SECONDS = 30.0
# How often leases are renewed and due jobs are looked for. A job that ends is followed by the next one at once.
TICK_SECONDS = 1.0
FIRST_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 60.0
EPOCHS = "job_epochs"
NOW: ColumnElement[Any] = func.clock_timestamp()
# A job that runs is not due, unless somebody adds it again meanwhile.
NEVER: ColumnElement[Any] = literal_column("'infinity'::timestamptz")


def jobs_table(metadata: MetaData) -> Table:
    """The table of jobs, which the migrations of each service create. A job that has a lease runs; one that is done has no row."""
    DatabaseSequence(EPOCHS, metadata=metadata)
    return Table(
        "jobs",
        metadata,
        Column("kind", String(32), primary_key=True),
        Column("key", String(128), primary_key=True),
        Column("payload", JSONB, nullable=False, server_default="{}"),
        Column("due", DateTime(timezone=True), nullable=False),
        Column("epoch", BigInteger, nullable=False, server_default="0"),
        Column("lease_expires", DateTime(timezone=True)),
        # Starts in a row that did not end well.
        Column("attempts", Integer, nullable=False, server_default="0"),
        # Why the last attempt failed; empty if it did not.
        Column("reason", String(64), nullable=False, server_default=""),
        Column("message", Text, nullable=False, server_default=""),
    )


def add_job(connection: Connection, table: Table, kind: str, key: str = "", **payload: Any) -> None:
    """Have a job run once the transaction commits. One that runs now is run again afterwards; one that exists keeps its payload."""
    statement = insert(table).values(kind=kind, key=key, due=NOW, payload=payload)
    due = {"due": func.least(table.c.due, NOW)}
    connection.execute(statement.on_conflict_do_update(index_elements=["kind", "key"], set_=due))


def drop_job(connection: Connection, table: Table, kind: str, key: str = "") -> None:
    """Remove a job. If it runs, its holder is asked to stop and can write nothing more. Idempotent."""
    connection.execute(delete(table).where(table.c.kind == kind, table.c.key == key))


def revoke_jobs(connection: Connection, table: Table, kind: str, keys: Select[Any]) -> None:
    """Take the jobs of these keys from their holders, who can write nothing more, and have them run again. Nobody takes one meanwhile."""
    same = and_(table.c.kind == kind, table.c.key.in_(keys))
    # The update would not wait for `HeldJob.check`.
    connection.execute(select(table.c.key).where(same).order_by(table.c.key).with_for_update())
    held = table.c.lease_expires.is_not(None)
    free = {"epoch": func.nextval(EPOCHS), "lease_expires": None, "due": NOW}
    connection.execute(update(table).where(same, held).values(free))


class JobLost(Stopped):
    """Another process holds the job, or it was dropped: its handler must end."""


@dataclass(frozen=True)
class HeldJob:
    """A job that this process holds. `stop` is set when its handler must end: the lease is lost, or the process ends.

    `attempts` counts this one. The handler's changes of `payload` are stored when it returns.
    """

    table: Table
    kind: "JobKind"
    key: str
    epoch: int
    attempts: int = 1
    payload: dict[str, Any] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event, compare=False)

    def check(self, connection: Connection) -> None:
        """Nobody else takes the job before the transaction ends. Raises JobLost if somebody has taken or dropped it."""
        held = select(self.table.c.epoch).where(self.is_held)
        # This lock lets leases be renewed, and keeps others from taking the job.
        if connection.scalar(held.with_for_update(read=True, key_share=True)) is None:
            raise JobLost

    @property
    def is_held(self) -> ColumnElement[bool]:
        """The condition that this holder is the newest one."""
        columns = self.table.c
        return and_(columns.kind == self.kind.name, columns.key == self.key, columns.epoch == self.epoch)


# Runs a job. Returns the seconds until it is due again, or None if it is done. A TailorError runs it again later, with growing pauses, and
# is shown as a notice; `Stopped` does so at once. Any other exception ends the process, as in a thread of `Runtime.spawn`.
Handle = Callable[[HeldJob], float | None]


@dataclass(frozen=True)
class JobKind:
    """A kind of jobs. `limit` of them run at a time in a process.

    With `every`, there is one, run at start and then at this interval in seconds, which no pause after a failure exceeds.
    """

    name: str
    handle: Handle
    limit: int = 1
    every: float | None = None


@dataclass
class Jobs:
    """Runs the jobs of a service. Several replicas may; each job is held by one of them."""

    engine: Engine
    table: Table
    kinds: Sequence[JobKind]
    faults: Faults = field(default_factory=Faults)
    lease_seconds: float = LEASE_SECONDS
    tick_seconds: float = TICK_SECONDS
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _running: dict[int, HeldJob] = field(default_factory=dict, init=False)
    _crash: BaseException | None = field(default=None, init=False)

    def run(self, stop: threading.Event) -> None:
        """Run what is due until `stop` is set, then ask the running handlers to end and wait for them. Blocks."""
        pool = ThreadPoolExecutor(sum(kind.limit for kind in self.kinds), thread_name_prefix="job")

        def step() -> None:
            self.renew()
            for job in self.claim():
                pool.submit(self._work_or_crash, job)
            self._show_failures()
            self.faults.clear("jobs")

        def report(error: TailorError, _: int) -> None:
            self.faults.report("jobs", error)

        try:
            retry(self.arm, stop=stop, on_wait=report)
            while not stop.is_set() and self._crash is None:
                retry(step, stop=stop, on_wait=report)
                self._wake.wait(self.tick_seconds)
                self._wake.clear()
        finally:
            for job in self._held():
                job.stop.set()
            pool.shutdown(wait=stop.is_set(), cancel_futures=True)
        if self._crash is not None:
            raise self._crash

    def arm(self) -> None:
        """Have the jobs that repeat run at once: a new process may have other settings."""
        with transaction(self.engine) as connection:
            for kind in self.kinds:
                if kind.every is not None:
                    add_job(connection, self.table, kind.name)

    def claim(self) -> list[HeldJob]:
        """Take the jobs that are due, the longest waiting ones first, as far as their kinds' limits allow."""
        busy = Counter(job.kind.name for job in self._held())
        free = [kind for kind in self.kinds for _ in range(kind.limit - busy[kind.name])]
        with transaction(self.engine) as connection:
            jobs = [job for kind in free if (job := self._claim_one(connection, kind)) is not None]
        with self._lock:
            self._running |= {job.epoch: job for job in jobs}
        return jobs

    def _claim_one(self, connection: Connection, kind: JobKind) -> HeldJob | None:
        table, columns = self.table, self.table.c
        is_due = or_(and_(columns.lease_expires.is_(None), columns.due <= NOW), columns.lease_expires <= NOW)
        longest_waiting = func.least(columns.due, columns.lease_expires)
        query = select(columns.key).where(columns.kind == kind.name, is_due).order_by(longest_waiting).limit(1)
        key = connection.scalar(query.with_for_update(skip_locked=True))
        if key is None:
            return None
        claim = update(table).where(columns.kind == kind.name, columns.key == key)
        lease = {"epoch": func.nextval(EPOCHS), "lease_expires": self._lease_end(), "attempts": columns.attempts + 1}
        claim = claim.values({"due": NEVER} | lease)
        row = connection.execute(claim.returning(columns.epoch, columns.attempts, columns.payload)).one()
        return HeldJob(table, kind, key, *row)

    def _lease_end(self) -> ColumnElement[Any]:
        return NOW + timedelta(seconds=self.lease_seconds)

    def work(self, job: HeldJob) -> None:
        """Run a job that was claimed, and record how it ended. Blocks."""
        try:
            again = job.kind.handle(job)
            self._finish(job, job.kind.every if again is None else again)
        except Stopped:
            log.info("job stopped", kind=job.kind.name, key=job.key)
            self._let_go(job, 0.0, attempts=job.attempts - 1)
        except TailorError as error:
            self._record_failure(job, error)
        finally:
            with self._lock:
                del self._running[job.epoch]
            self._wake.set()

    def renew(self) -> None:
        """Renew the leases, and ask the handlers whose jobs others have taken to stop."""
        held = {job.epoch: job for job in self._held()}
        if not held:
            return
        epoch = self.table.c.epoch
        statement = update(self.table).where(epoch.in_(held)).values(lease_expires=self._lease_end())
        with transaction(self.engine) as connection:
            renewed = set(connection.scalars(statement.returning(epoch)))
        for lost in held.keys() - renewed:
            held[lost].stop.set()

    def _held(self) -> list[HeldJob]:
        with self._lock:
            return list(self._running.values())

    def _work_or_crash(self, job: HeldJob) -> None:
        try:
            self.work(job)
        except BaseException as error:  # noqa: BLE001 - `run` raises it, in the thread that ends the process
            self._crash = error

    def _finish(self, job: HeldJob, again: float | None) -> None:
        if again is not None:
            self._let_go(job, again)
        elif not self._store(delete(self.table).where(job.is_held, self.table.c.due == NEVER)):
            # It was added again meanwhile, or another one has it.
            self._let_go(job, MAX_BACKOFF_SECONDS)

    def _let_go(self, job: HeldJob, seconds: float, attempts: int = 0, reason: str = "", message: str = "") -> None:
        """Have the job run again in a number of seconds, or when it was added meanwhile."""
        due = func.least(self.table.c.due, NOW + timedelta(seconds=seconds))
        values = {"attempts": attempts, "reason": reason, "message": message, "payload": job.payload}
        self._store(update(self.table).where(job.is_held).values(due=due, lease_expires=None, **values))

    def _record_failure(self, job: HeldJob, error: TailorError) -> None:
        if job.attempts == 1:
            log.warning("job failed", kind=job.kind.name, key=job.key, reason=error.reason)
        longest = min(MAX_BACKOFF_SECONDS, job.kind.every or MAX_BACKOFF_SECONDS)
        pause = min(longest, FIRST_BACKOFF_SECONDS * 2.0 ** min(job.attempts - 1, 16))
        asked = min(error.retry_after_seconds or 0.0, MAX_RETRY_AFTER_SECONDS)
        self._let_go(job, max(pause, asked), job.attempts, str(error.reason), error.message)

    def _store(self, statement: Delete | Update) -> int:
        """The number of changed rows. If the database does not answer, the job runs again once its lease ends."""
        try:
            with transaction(self.engine) as connection:
                return connection.execute(statement).rowcount
        except Unavailable as error:
            log.warning("end of a job not recorded", reason=error.reason)
            return 0

    def _show_failures(self) -> None:
        """Show one failed job of each kind as a notice, whichever replica ran it."""
        columns = self.table.c
        query = select(columns.kind, columns.reason, columns.message).where(columns.reason != "")
        with transaction(self.engine) as connection:
            failed = {row.kind: row for row in connection.execute(query.order_by(columns.kind, columns.key))}
        for kind in self.kinds:
            if row := failed.get(kind.name):
                self.faults.notice(f"job {kind.name}", Unavailable(row.reason, row.message))
            else:
                self.faults.clear(f"job {kind.name}")
