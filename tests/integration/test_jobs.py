"""Jobs over PostgreSQL: leases, epochs, backoff, repeated kinds and the loop."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from sqlalchemy import Engine, MetaData, select, update

from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.events.faults import Faults
from tailor.jobs import Handle, HeldJob, JobKind, JobLost, Jobs, add_job, drop_job, jobs_table, revoke_jobs
from tailor.retry import Stopped
from tailor.sql import connect, create_tables, transaction
from tests.jobs import end_leases, make_due, run_due
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

METADATA = MetaData()
TABLE = jobs_table(METADATA)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = connect(database_url)
    create_tables(engine, METADATA)
    yield engine
    engine.dispose()


def add(engine: Engine, key: str, kind: str = "count") -> None:
    with transaction(engine) as connection:
        add_job(connection, TABLE, kind, key, first=key)


def nothing(job: HeldJob) -> None:
    return None


def make(engine: Engine, handle: Handle = nothing, limit: int = 2, every: float | None = None) -> Jobs:
    return Jobs(engine, TABLE, [JobKind("count", handle, limit, every)], tick_seconds=0.02)


def keys(engine: Engine) -> list[str]:
    with transaction(engine) as connection:
        return list(connection.scalars(select(TABLE.c.key).order_by(TABLE.c.key)))


def is_stale(engine: Engine, job: HeldJob) -> bool:
    try:
        with transaction(engine) as connection:
            job.check(connection)
    except JobLost:
        return True
    return False


def test_due_jobs_are_claimed_once_in_order_and_are_gone_when_they_are_done(engine: Engine) -> None:
    for key in ("b", "a", "c"):
        add(engine, key)
    first, second = make(engine), make(engine)
    jobs = first.claim()
    assert [(job.key, job.attempts, job.payload) for job in jobs] == [
        ("b", 1, {"first": "b"}),
        ("a", 1, {"first": "a"}),
    ]
    assert [job.key for job in second.claim()] == ["c"] and not first.claim()
    for job in jobs:
        first.work(job)
    assert keys(engine) == ["c"]


def test_a_killed_or_paused_holder_can_write_nothing_after_its_lease(engine: Engine) -> None:
    add(engine, "a")
    killed, other = make(engine), make(engine)
    (old,) = killed.claim()
    assert not other.claim()
    end_leases(engine, TABLE)
    (new,) = other.claim()
    assert (new.attempts, is_stale(engine, old), is_stale(engine, new)) == (2, True, False)
    killed.renew()
    assert old.stop.is_set()
    # It wakes up and ends as if nothing had happened: the job stays with the other one.
    killed.work(old)
    other.renew()
    assert not new.stop.is_set() and not is_stale(engine, new)
    other.work(new)
    assert keys(engine) == []
    # A job of the same name has another epoch.
    add(engine, "a")
    (newest,) = other.claim()
    assert is_stale(engine, old) and is_stale(engine, new) and newest.attempts == 1


def test_a_job_cannot_be_taken_while_its_holder_writes(engine: Engine) -> None:
    add(engine, "a")
    holder, other = make(engine), make(engine)
    (job,) = holder.claim()
    end_leases(engine, TABLE)
    with transaction(engine) as connection:
        job.check(connection)
        assert other.claim() == []
        # Renewing does not wait for the transaction.
        holder.renew()
    end_leases(engine, TABLE)
    assert len(other.claim()) == 1


def test_a_dropped_job_stops_its_holder_and_one_that_is_added_meanwhile_runs_again(engine: Engine) -> None:
    add(engine, "dropped")
    add(engine, "again")
    jobs = make(engine)
    dropped, again = jobs.claim()
    with transaction(engine) as connection:
        drop_job(connection, TABLE, "count", "dropped")
    add(engine, "again")
    jobs.renew()
    assert dropped.stop.is_set() and is_stale(engine, dropped) and not again.stop.is_set()
    for job in (dropped, again):
        jobs.work(job)
    assert [job.key for job in jobs.claim()] == ["again"]


def test_a_revoked_job_leaves_its_holder_and_runs_again(engine: Engine) -> None:
    add(engine, "a")
    jobs = make(engine)
    (held,) = jobs.claim()
    with transaction(engine) as connection:
        revoke_jobs(connection, TABLE, "count", select(TABLE.c.key))
    jobs.renew()
    assert held.stop.is_set() and is_stale(engine, held)
    jobs.work(held)
    assert [job.key for job in jobs.claim()] == ["a"]


def test_a_failing_job_waits_longer_each_time_and_is_shown_until_it_ends_well(engine: Engine) -> None:
    errors = [FailedPrecondition(Reason.WRONG_BASE, "Another base.") for _ in range(3)]
    attempts, seen = [], []

    def fail(job: HeldJob) -> None:
        attempts.append(job.attempts)
        if errors:
            raise errors.pop()

    def has_failed(times: int) -> bool:
        with transaction(engine) as connection:
            waits = connection.scalar(select(TABLE.c.attempts).where(TABLE.c.lease_expires.is_(None)))
        return waits == times and bool(faults.all())

    faults = Faults()
    jobs = Jobs(engine, TABLE, [JobKind("count", fail)], faults=faults, tick_seconds=0.02)
    add(engine, "a")
    with running(jobs):
        for number in range(1, 4):
            wait_until(partial(has_failed, number))
            (fault,) = faults.all()
            seen.append((fault.part, fault.reason, fault.waits))
            assert len(attempts) == number
            make_due(engine, TABLE)
        wait_until(lambda: not faults.all())
    assert attempts == [1, 2, 3, 4] and keys(engine) == []
    assert seen == [("job count", "WRONG_BASE", False)] * 3


def test_a_job_that_repeats_fails_at_its_interval(engine: Engine) -> None:
    attempts = []

    def fail(job: HeldJob) -> None:
        attempts.append(job.attempts)
        raise FailedPrecondition(Reason.WRONG_BASE, "Another base.")

    with running(make(engine, fail, every=0.02)):
        wait_until(lambda: len(attempts) > 8)


def test_a_job_that_waits_or_is_interrupted_keeps_its_payload_and_counts_no_attempt(engine: Engine) -> None:
    def wait(job: HeldJob) -> float:
        job.payload["waits"] = job.payload.get("waits", 0) + 1
        if job.payload["waits"] == 3:
            raise Stopped
        return 0.0

    add(engine, "a")
    jobs = make(engine, wait)
    for _ in range(3):
        assert run_due(jobs) == 1
    (job,) = jobs.claim()
    assert (job.attempts, job.payload["waits"]) == (1, 3)


def test_a_kind_that_repeats_runs_at_start_and_again_after_its_time(engine: Engine) -> None:
    runs = []
    jobs = make(engine, lambda job: runs.append(job.key), every=3600)
    for _ in range(2):
        jobs.arm()
        assert run_due(jobs) == 1 and run_due(jobs) == 0
    assert runs == ["", ""]
    make_due(engine, TABLE)
    assert run_due(jobs) == 1


class running:
    """The loop in a thread, until the context ends. `error` is what it raised."""

    def __init__(self, jobs: Jobs) -> None:
        self.stop, self.error = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, args=(jobs.run,))

    def _run(self, run: Callable[[threading.Event], None]) -> None:
        try:
            run(self.stop)
        except BaseException as error:
            self.error.append(error)

    def __enter__(self) -> "running":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_a_long_job_delays_no_other_keeps_its_lease_and_is_drained(engine: Engine) -> None:
    ended = []

    def last(job: HeldJob) -> float:
        job.stop.wait(60)
        ended.append(job.key)
        return 0.0

    kinds = [JobKind("long", last), JobKind("count", lambda job: ended.append(job.key))]
    jobs = Jobs(engine, TABLE, kinds, lease_seconds=0.5, tick_seconds=0.02)
    add(engine, "long", "long")
    with running(jobs):
        for number in range(5):
            add(engine, f"short-{number}")
        wait_until(lambda: len(ended) == 5)
        time.sleep(1.0)
        assert make(engine).claim() == [] and len(ended) == 5
    # It was released, so that the next process runs it at once.
    assert ended[-1] == "long" and [job.key for job in Jobs(engine, TABLE, kinds).claim()] == ["long"]


def test_a_defect_ends_the_process_and_the_next_one_runs_the_job_again(engine: Engine) -> None:
    def crash(job: HeldJob) -> None:
        raise SystemError("killed")

    add(engine, "a")
    with running(make(engine, crash)) as loop:
        wait_until(lambda: loop.error)
    assert isinstance(loop.error[0], SystemError)
    end_leases(engine, TABLE)
    (job,) = make(engine).claim()
    assert job.attempts == 2


def test_the_loop_waits_for_a_lost_database(engine: Engine) -> None:
    faults, done = Faults(), list[str]()
    jobs = Jobs(engine, TABLE, [JobKind("count", lambda job: done.append(job.key))], faults=faults, tick_seconds=0.02)
    claim, failures = jobs.claim, [Unavailable(Reason.DATABASE_UNAVAILABLE, "Gone.")] * 2

    def claim_or_fail() -> list[HeldJob]:
        if failures:
            raise failures.pop()
        return claim()

    jobs.claim = claim_or_fail  # type: ignore[method-assign]
    add(engine, "a")
    with running(jobs):
        wait_until(lambda: done == ["a"])
        wait_until(lambda: not faults.all())
    with transaction(engine) as connection:
        connection.execute(update(TABLE).values(due=TABLE.c.due))
