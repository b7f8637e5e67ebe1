"""What the runs of a specialist cost in a calendar month, and what is left of its budget. Standard library only."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from services.training.domain import Run, RunState
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
    return _price(run, count_worked_seconds(run))


def price_month(run: Run, month: datetime) -> float:
    """Price of the compute that a run has used in the current month, which begins at `month`."""
    return _price(run, count_worked_seconds(run) - _count_earlier_seconds(run, month))


def price_committed(runs: Iterable[Run], month: datetime) -> float:
    """Price of the compute of runs that ended in the month or have not ended. Of the latter, at least their forecast counts."""
    return sum(_price_committed(run, month) for run in runs)


def must_end(run: Run, limit: float, moment: datetime, ends_within: timedelta) -> bool:
    """True if the worker of a run must be stopped so that the run uses at most `limit` in the current month.

    `moment` is up to when it would go on otherwise. The worker may take `ends_within` to save and end, so it is stopped that much earlier,
    but if possible not before the forecast is used up.
    """
    earlier = _count_earlier_seconds(run, first_of_month(moment))
    heard = (moment - run.heard_since).total_seconds() if run.heard_since else 0.0
    used = _price(run, run.worked_seconds + heard - earlier)
    forecast = run.plan.seconds if run.plan else 0.0
    planned = _price(run, run.seconds_before_plan + forecast - earlier)
    return used > max(limit - _price(run, ends_within.total_seconds()), min(limit, planned))


def _count_earlier_seconds(run: Run, month: datetime) -> float:
    """Seconds that the run had worked before the current month."""
    return run.seconds_before_month if run.month == month else count_worked_seconds(run)


def _price_committed(run: Run, month: datetime) -> float:
    used = price_month(run, month)
    # A run that waits for approval may never start; the budget is checked when it is approved.
    if run.state.ended or run.state is RunState.AWAITING_APPROVAL or run.plan is None:
        return used
    return max(run.plan.price.compute, used)


def _price(run: Run, seconds: float) -> float:
    return seconds / SECONDS_PER_HOUR * (run.plan.hourly_price if run.plan else 0.0)
