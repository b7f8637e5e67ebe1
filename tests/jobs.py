"""Helpers of tests over jobs: running what is due in the test's own thread, and moving the time of leases."""

from sqlalchemy import Engine, Table, func, update

from tailor.jobs import Jobs
from tailor.sql import transaction


def run_due(jobs: Jobs) -> int:
    """Run the jobs that are due, one after another. Returns their number."""
    claimed = jobs.claim()
    for job in claimed:
        jobs.work(job)
    return len(claimed)


def end_leases(engine: Engine, table: Table) -> None:
    """End the lease of every job that runs, as if its holder had been killed or paused."""
    with transaction(engine) as connection:
        held = table.c.lease_expires.is_not(None)
        connection.execute(update(table).where(held).values(lease_expires=func.clock_timestamp()))


def make_due(engine: Engine, table: Table) -> None:
    """Make every job due that does not run."""
    with transaction(engine) as connection:
        waiting = table.c.lease_expires.is_(None)
        connection.execute(update(table).where(waiting).values(due=func.clock_timestamp()))
