"""The two repeated jobs over the runs: one plans queued runs, the supervisor starts and replaces their workers."""

from collections.abc import Callable, Container
from dataclasses import replace
from datetime import datetime

from services.training.adapters.sql import SqlRuns, SqlUnit
from services.training.domain import RETRIABLE_EXIT, Failure, Job, Run, RunState, StartedWorker
from services.training.handlers import TrainingPorts, explain_misfit, explain_overspending, find_reward, make_plan
from services.training.ports import Launcher
from services.training.queue import Limits, Queue
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
    wait_for_place,
)
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)


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
            self._change(run, lambda stored: lose_worker(stored, Reason.WORKER_DIED, self._now()))
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
