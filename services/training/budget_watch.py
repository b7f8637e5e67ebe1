"""The repeated job that stops runs before they exceed their budget: forecasts can be too low, and other costs use the same budget."""

from datetime import datetime, timedelta

from services.training.domain import Failure, Run, RunState
from services.training.handlers import TrainingPorts, price_others
from services.training.spending import first_of_month, must_end, price_month
from services.training.transitions import LEASE, stop_worker
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL = timedelta(seconds=5)
# The registry adds up its ledger for an answer, and serving costs little within a minute.
COSTS_LIFETIME = timedelta(seconds=60)


class BudgetWatch:
    """Has a run's worker save and end while there is still time for it. `ends_within` is the most that this takes; the run fails then.

    While the registry does not answer, its last answer of the month counts; until it has given one, only runs do.
    """

    def __init__(self, ports: TrainingPorts, ends_within: timedelta) -> None:
        self._ports = ports
        self._ends_within = ends_within
        self._other_costs: dict[str, tuple[datetime, float]] = {}
        self._silent_since: datetime | None = None

    def tick(self) -> None:
        """Look at every run that trains, whose compute has a price, and whose specialist has a budget."""
        for run in self._ports.runs.active():
            budget = self._ports.budgets.get(run.key.specialist)
            if budget and run.plan is not None and run.plan.hourly_price > 0 and _can_stop(run):
                self._check(run, budget)

    def _check(self, run: Run, budget: float) -> None:
        limit = budget - self._find_other_costs(run.key.specialist) - price_others(self._ports, run)
        now = self._ports.now()
        # A worker that is silent for longer may have ended; the supervisor finds out.
        moment = min(now, run.heard_last + LEASE) if run.heard_last else now
        if not must_end(run, limit, moment + INTERVAL, self._ends_within):
            return
        with self._ports.runs.unit() as unit:
            stored = unit.get(run.run_id)
            if stored.epoch != run.epoch or not _can_stop(stored):
                return
            unit.save(stop_worker(stored, _explain(stored, budget, first_of_month(now))))
        log.warning("run stopped at its budget", run_id=run.run_id, specialist=run.key.specialist)

    def _find_other_costs(self, specialist: str) -> float:
        """The last known costs besides runs in this month. Asks the registry at most once a minute; blocks."""
        now = self._ports.now()
        asked, costs = self._other_costs.get(specialist, (now - COSTS_LIFETIME, 0.0))
        if asked < first_of_month(now):
            costs = 0.0
        is_silent = self._silent_since is not None and now - self._silent_since < COSTS_LIFETIME
        if is_silent or (first_of_month(now) <= asked and now - asked < COSTS_LIFETIME):
            return costs
        try:
            costs = self._ports.price_other_costs(specialist)
        except TailorError as error:
            log.warning("costs besides runs not known", specialist=specialist, reason=error.reason)
            self._silent_since = now
            return costs
        self._other_costs[specialist] = now, costs
        return costs


def _can_stop(run: Run) -> bool:
    return run.state is RunState.RUNNING and run.stopping is None and not run.is_finishing


def _explain(run: Run, budget: float, month: datetime) -> Failure:
    currency, forecast = (run.plan.price.currency, run.plan.price.compute) if run.plan else ("", 0.0)
    return Failure(
        Reason.OVER_BUDGET,
        f"The run was stopped at {price_month(run, month):.2f} {currency}, forecast at {forecast:.2f} {currency}, before it exceeded the "
        f"monthly budget of {budget:.2f} {currency} of {run.key.specialist!r}. Raise `monthly_budget`, or resume the run next month: it "
        "continues from its last checkpoint.",
    )
