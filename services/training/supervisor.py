"""The repeated jobs over the runs: plan queued runs, start and replace their workers, watch their budgets; and what waits for approval."""

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.training.adapters.sql import SqlRuns, SqlUnit
from services.training.domain import RETRIABLE_EXIT, Failure, Job, Run, RunState, StartedWorker
from services.training.handlers import (
    TrainingPorts,
    explain_misfit,
    explain_overspending,
    find_reward,
    make_plan,
    price_others,
)
from services.training.ports import Launcher
from services.training.queue import Limits, Queue
from services.training.spending import first_of_month, must_end, price_month
from services.training.transitions import (
    LEASE,
    RECHECK_INTERVAL,
    START_LEASE,
    assign_plan,
    assign_reward,
    defer_planning,
    fail,
    keep_waiting,
    lose_worker,
    requeue,
    requeue_preempted,
    start,
    stop_worker,
    wait_for_place,
)
from tailor.errors import FailedPrecondition, Reason, TailorError
from tailor.events.faults import Faults
from tailor.logging import get_logger
from tailor.telemetry import RUNS_AWAITING_APPROVAL

log = get_logger(__name__)

WATCH_INTERVAL = timedelta(seconds=5)
# The registry adds up its ledger for an answer, and serving costs little within a minute.
COSTS_LIFETIME = timedelta(seconds=60)
# What the notice about runs that wait for approval is about.
WAITING_PART = "run approval"
SHOWN_RUNS = 3


def prepare_runs(ports: TrainingPorts) -> None:
    """Make queued runs ready to start: plan them, and find the reward adapter of their current stage.

    Both may take seconds, so no transaction is open meanwhile. A run that was changed meanwhile stays as it is.
    """
    for run in ports.runs.active():
        if not run.due(ports.now()) or run.current.dataset is None:
            continue
        if run.needs_plan or (run.current.wants_reward and run.current.reward is None):
            _save_prepared(ports, run, _prepare(ports, run))


def _prepare(ports: TrainingPorts, run: Run) -> Run:
    now = ports.now()
    try:
        planned = _with_plan(ports, run) if run.needs_plan else run
        stage = planned.current
        if planned.needs_plan or planned.state is not RunState.QUEUED or not stage.wants_reward or stage.reward:
            return planned
        return assign_reward(planned, find_reward(ports, planned))
    except TailorError as error:
        failure = Failure(error.reason, error.message)
        if not error.retryable:
            return fail(run, failure, now)
        log.warning("run not planned", run_id=run.run_id, reason=error.reason)
        return defer_planning(run, failure, now)


def _with_plan(ports: TrainingPorts, run: Run) -> Run:
    base = ports.bases.find(run.key.base)
    if base is None:
        missing = Failure(Reason.WAITS_FOR_BASE, "Its base is not in the models bucket yet.")
        return keep_waiting(run, missing, ports.now() + RECHECK_INTERVAL)
    plan = make_plan(ports, run, base)
    run_with_plan = assign_plan(run, plan, base)
    failure = explain_overspending(ports, run, plan) if plan.fits else explain_misfit(plan)
    return run_with_plan if failure is None else fail(run_with_plan, failure, ports.now())


def _save_prepared(ports: TrainingPorts, old: Run, new: Run) -> None:
    """Save the prepared run, unless it was changed meanwhile."""
    with ports.runs.unit() as unit:
        stored = unit.get(old.run_id)
        # The supervisor may have updated what the run waits for. That does not affect the preparation.
        if stored.state is not RunState.QUEUED or _without_reason(stored) != _without_reason(old):
            return
        unit.save(new)
        if new.state is RunState.FAILED:
            unit.publish_failure(new)


def _without_reason(run: Run) -> Run:
    return replace(run, reason="", message="")


class Supervisor:
    """Starts workers for queued runs, and replaces lost ones. A restarted service finds a live worker by its lease, and keeps it.

    Each change locks the run and checks it again, so a paused supervisor does no harm. Launchers are called outside transactions.
    """

    def __init__(self, runs: SqlRuns, launcher: Launcher, limits: Limits, now: Callable[[], datetime]) -> None:
        self._runs = runs
        self._launcher = launcher
        self._limits = limits
        self._now = now
        self._stopped: set[StartedWorker] = set()

    def adopt(self) -> None:
        """Extend every lease once, after a restart: workers could not report while the service was down."""
        with self._runs.unit() as unit:
            for run in unit.active():
                if run.state is RunState.RUNNING:
                    unit.save(replace(run, lease_expires=self._now() + LEASE))

    def tick(self) -> None:
        """Check every worker once, stop unwanted ones, and start the runs that are next."""
        active = self._runs.active()
        healthy = set()
        for run in active:
            if run.state is RunState.RUNNING and not self._handle_worker(run):
                healthy.add((run.run_id, run.epoch))
        self._stop_leftovers(healthy)
        if len(healthy) < len(active):
            for job in self._next_jobs():
                self._launch(job)

    def _handle_worker(self, run: Run) -> bool:
        """React if the worker ended, is silent, or waits to be placed. False if it is fine."""
        worker = StartedWorker(run.run_id, run.epoch)
        if run.stopping and worker not in self._stopped:
            self._launcher.stop(run.run_id, run.epoch)
            self._stopped.add(worker)
        refusal = self._launcher.refusal(run.run_id, run.epoch)
        code = self._launcher.exit_code(run.run_id, run.epoch)
        if refusal is not None:
            log.warning("worker refused", run_id=run.run_id, epoch=run.epoch, reason=refusal.reason)
            self._change(run, lambda stored: fail(stored, refusal, self._now()))
        elif code == RETRIABLE_EXIT:
            self._change(run, lambda stored: requeue_preempted(stored, self._now()))
        elif code is not None:
            log.warning("worker ended", run_id=run.run_id, epoch=run.epoch, exit_code=code)
            self._change(run, lambda stored: lose_worker(stored, Reason.WORKER_DIED, self._now(), code))
        else:
            return self._handle_silence(run)
        return True

    def _handle_silence(self, run: Run) -> bool:
        lost = run.lease_lost(self._now())
        waiting = self._launcher.waits(run.run_id, run.epoch)
        if waiting is not None:
            if lost or (run.reason, run.message) != (waiting.reason, waiting.message):
                self._change(run, lambda stored: wait_for_place(stored, waiting, self._now()))
        elif lost:
            log.warning("worker silent", run_id=run.run_id, epoch=run.epoch)
            self._change(run, self._lose_silent_worker)
        return lost or waiting is not None

    def _lose_silent_worker(self, run: Run) -> Run:
        # The worker may have reported since.
        return lose_worker(run, Reason.WORKER_SILENT, self._now()) if run.lease_lost(self._now()) else run

    def _change(self, seen: Run, change: Callable[[Run], Run]) -> None:
        """Change the run, unless its worker reported an end or another service was faster."""
        with self._runs.unit() as unit:
            stored = unit.get(seen.run_id)
            if stored.state is not RunState.RUNNING or stored.epoch != seen.epoch:
                return
            changed = change(stored)
            unit.save(changed)
            if changed.state is RunState.FAILED:
                unit.publish_failure(changed)

    def _stop_leftovers(self, healthy: Container[tuple[str, int]]) -> None:
        """Stop workers without a lease: of cancelled runs and old epochs, also from before a restart."""
        for worker in self._runs.workers():
            if (worker.run_id, worker.epoch) in healthy:
                continue
            run = self._runs.get(worker.run_id)
            if run.state is RunState.RUNNING and run.epoch == worker.epoch:
                continue
            ended = self._launcher.exit_code(worker.run_id, worker.epoch) is not None
            stop_time = worker.stop_time or self._now()
            if ended or self._now() - stop_time > self._launcher.ends_within:
                self._stopped.discard(replace(worker, stop_time=None))
                with self._runs.unit() as unit:
                    unit.drop_worker(worker)
            else:
                self._stop(run, worker, stop_time)

    def _stop(self, run: Run, worker: StartedWorker, stop_time: datetime) -> None:
        if worker.stop_time is None:
            with self._runs.unit() as unit:
                unit.save_worker(replace(worker, stop_time=stop_time))
        key = replace(worker, stop_time=None)
        # A worker that has just completed a stage still deletes its checkpoints.
        cleans_up = run.finished_stage_under(worker.epoch) and self._now() - stop_time < LEASE
        if key not in self._stopped and not cleans_up:
            self._launcher.stop(worker.run_id, worker.epoch)
            self._stopped.add(key)

    def _next_jobs(self) -> list[Job]:
        """Start the leases of the runs that are next, and record what the others wait for."""
        jobs = []
        busy = {(worker.run_id, worker.epoch) for worker in self._runs.workers()}
        with self._runs.unit() as unit:
            queue = Queue(unit.active(), self._limits, busy, self._now())
            for run in queue.queued:
                failure = queue.take(run)
                if failure is not None:
                    _record_waiting(unit, run, failure)
                    continue
                started = start(run, self._now())
                unit.save(started)
                unit.save_worker(StartedWorker(started.run_id, started.epoch))
                jobs.append(Job(started, started.base_digest))
        return jobs

    def _launch(self, job: Job) -> None:
        # The lease is committed first: from now on, every reader of the runs knows that this epoch may be alive.
        log.info("worker starts", run_id=job.run.run_id, epoch=job.run.epoch, lease_seconds=START_LEASE.seconds)
        try:
            self._launcher.start(job)
        except TailorError as error:
            log.warning("worker not started", run_id=job.run.run_id, reason=error.reason)
            failure = Failure(error.reason, error.message)
            follow_up = requeue if error.retryable else fail
            self._change(job.run, lambda stored: follow_up(stored, failure, self._now()))


def _record_waiting(unit: SqlUnit, run: Run, failure: Failure) -> None:
    if (run.reason, run.message) != (failure.reason, failure.message):
        unit.save(keep_waiting(run, failure, run.not_before))


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
        if not must_end(run, limit, moment + WATCH_INTERVAL, self._ends_within):
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
        f"monthly budget of {budget:.2f} {currency} of {run.key.specialist!r}. Raise it, or resume the run next month: it "
        "continues from its last checkpoint.",
    )


def show_waiting_runs(runs: SqlRuns, faults: Faults) -> None:
    """Show which runs wait for approval: as a notice of this process, and as a metric."""
    waiting = runs.awaiting_approval()
    RUNS_AWAITING_APPROVAL.set(len(waiting))
    if waiting:
        faults.notice(WAITING_PART, FailedPrecondition(Reason.WAITS_FOR_APPROVAL, _describe(waiting)))
    else:
        faults.clear(WAITING_PART)


def _describe(waiting: Sequence[Run]) -> str:
    """The oldest runs, each with what would fit."""
    sentences = [f"A run of {run.key.specialist!r} waits. {run.message}" for run in waiting[:SHOWN_RUNS]]
    if len(waiting) > SHOWN_RUNS:
        sentences.append(f"{len(waiting) - SHOWN_RUNS} more wait: `tailor run list`.")
    return " ".join(sentences)
