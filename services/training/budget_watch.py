"""The loop that stops runs before they pass their specialist's budget: forecasts can be too low, and specialists use other things, too."""

import threading
from datetime import datetime, timedelta

from services.training.domain import Failure, Run
from services.training.handlers import TrainingPorts, find_limit
from services.training.spending import first_of_month, must_end, price_month
from services.training.supervisor import tick_until_stopped
from services.training.transitions import fail
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL = timedelta(seconds=5)
# The registry adds up its ledger for an answer, and serving costs little within a minute.
COSTS_LIFETIME = timedelta(seconds=60)


class BudgetWatch:
    """Fails a run with OVER_BUDGET while there is still time for its worker to save. `ends_within` is the most that this takes.

    While the registry does not answer, its last answer counts; before the first one, only runs do.
    """

    def __init__(self, ports: TrainingPorts, ends_within: timedelta) -> None:
        self._ports = ports
        self._ends_within = ends_within
        self._other_costs: dict[str, tuple[datetime, float]] = {}

    def run(self, stop: threading.Event) -> None:
        """Watch until stopped. Blocks."""
        tick_until_stopped(self.tick, stop, INTERVAL.total_seconds())

    def tick(self) -> None:
        """Look at every run that has worked or works now, and whose compute has a price."""
        for run in self._ports.runs.active():
            has_price = run.plan is not None and run.plan.hourly_price > 0
            if has_price and run.epoch > 0 and self._ports.budgets.get(run.key.specialist):
                self._check(run)

    def _check(self, run: Run) -> None:
        now = self._ports.now()
        limit = find_limit(self._ports, run, self._find_other_costs(run.key.specialist, now))
        if not must_end(run, limit, now + INTERVAL, self._ends_within):
            return
        with self._ports.runs.unit() as unit:
            stored = unit.get(run.run_id)
            if stored is None or stored.state.ended or stored.epoch != run.epoch:
                return
            failed = fail(stored, self._explain(stored), now)
            unit.save(failed)
            unit.events.publish_failure(failed)
        log.warning("run stopped at its budget", run_id=run.run_id, specialist=run.key.specialist)

    def _explain(self, run: Run) -> Failure:
        name = run.key.specialist
        plan, budget, month = run.plan, self._ports.budgets[name], first_of_month(self._ports.now())
        currency, forecast = (plan.price.currency, plan.price.compute) if plan else ("", 0.0)
        return Failure(
            Reason.OVER_BUDGET,
            f"The run was stopped at {price_month(run, month):.2f} {currency}, forecast at {forecast:.2f} {currency}, before the monthly "
            f"budget of {budget:.2f} {currency} of {name!r} was passed. Raise `monthly_budget`, or resume the run next month: it goes on "
            "from its last checkpoint.",
        )

    def _find_other_costs(self, specialist: str, now: datetime) -> float:
        asked, costs = self._other_costs.get(specialist, (None, 0.0))
        if asked is not None and first_of_month(now) <= asked and now - asked < COSTS_LIFETIME:
            return costs
        try:
            costs = self._ports.other_costs.this_month(specialist)
        except TailorError as error:
            log.warning("costs besides runs not known", specialist=specialist, reason=error.reason)
            return costs
        self._other_costs[specialist] = now, costs
        return costs
