"""What the runs of a specialist cost in a calendar month, and what is left of its budget. Standard library only."""

from collections.abc import Iterable
from datetime import datetime, timedelta

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
    return _price_seconds(run, count_worked_seconds(run))


def price_month(run: Run, month: datetime) -> float:
    """Price of the compute that a run has used in the month that begins then; the one in which it ended, or else the current one."""
    if run.state.ended and (run.end_time is None or run.end_time < month):
        return 0.0
    return _price_seconds(run, count_worked_seconds(run) - run.earlier_seconds)


def price_until(run: Run, moment: datetime) -> float:
    """Price of the compute that a run that has not ended will have used in the current month if its worker goes on until a moment."""
    heard = (moment - run.heard_since).total_seconds() if run.heard_since else 0.0
    return _price_seconds(run, run.worked_seconds - run.earlier_seconds + heard)


def price_committed(runs: Iterable[Run], month: datetime) -> float:
    """Price of the compute of runs that ended in the month or have not ended. Of the latter, at least their forecast counts."""
    return sum(_price_committed(run, month) for run in runs)


def must_end(run: Run, limit: float, next_look: datetime, ends_within: timedelta) -> bool:
    """True if a run that has not ended must do so now, so that it does not use more than `limit` in the current month.

    Its worker may take `ends_within` to save and end. It is stopped so much earlier, but not before its forecast is used up.
    """
    forecast = run.plan.price.compute if run.plan else 0.0
    latest = limit - _price_seconds(run, ends_within.total_seconds())
    return price_until(run, next_look) > max(latest, min(limit, forecast))


def _price_committed(run: Run, month: datetime) -> float:
    spent = price_month(run, month)
    if run.state.ended or run.plan is None:
        return spent
    return max(run.plan.price.compute, spent)


def _price_seconds(run: Run, seconds: float) -> float:
    return seconds / SECONDS_PER_HOUR * (run.plan.hourly_price if run.plan else 0.0)
