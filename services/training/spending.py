"""What the runs of a specialist cost in a calendar month, and what is left of its budget. Standard library only."""

from collections.abc import Iterable
from datetime import datetime

from services.training.domain import Run
from services.training.plans import SECONDS_PER_HOUR


def first_of_month(moment: datetime) -> datetime:
    """The beginning of a moment's month, in the moment's own time zone."""
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def count_worked_seconds(run: Run) -> float:
    """Seconds of wall time that a run's workers have used so far, the current one included."""
    heard = (run.heard_last - run.heard_since).total_seconds() if run.heard_since and run.heard_last else 0.0
    return run.worked_seconds + heard


def price_worked(run: Run) -> float:
    """Price of the compute that a run has used so far; 0 before it is planned."""
    return count_worked_seconds(run) / SECONDS_PER_HOUR * (run.plan.hourly_price if run.plan else 0.0)


def price_committed(runs: Iterable[Run], month: datetime) -> float:
    """Price of the compute of runs that ended in the month or have not ended. Of the latter, at least their forecast counts."""
    return sum(_price(run, month) for run in runs)


def _price(run: Run, month: datetime) -> float:
    if not run.state.ended:
        forecast = run.plan.price.compute if run.plan else 0.0
        return max(forecast, price_worked(run))
    return price_worked(run) if run.end_time and run.end_time >= month else 0.0
