"""Keeps runs going: starts workers for what is queued, and other ones where workers were lost."""

import threading
from collections.abc import Callable, Container
from dataclasses import replace
from datetime import datetime

from services.training.domain import RETRIABLE_EXIT, Failure, Job, Launcher, Run, RunState, Worker
from services.training.ports import Runs, Unit
from services.training.queue import Limits, Queue
from services.training.transitions import (
    LEASE,
    START_LEASE,
    fail,
    lose_worker,
    put_back,
    start,
    wait_for,
    wait_for_place,
    yield_place,
)
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL_SECONDS = 1.0


class Supervisor:
    """Looks at the runs every second. A restarted service finds a live worker by its lease, and leaves it be.

    Several of them may look at one database: what one changes it has locked, and looked at again. Launchers are asked outside of
    transactions.
    """

    def __init__(self, runs: Runs, launcher: Launcher, limits: Limits, now: Callable[[], datetime]) -> None:
        self._runs = runs
        self._launcher = launcher
        self._limits = limits
        self._now = now
        self._stopped: set[Worker] = set()

    def run(self, stop: threading.Event) -> None:
        """Supervise until told to stop; a lost store or database only delays it."""
        while not stop.is_set():
            try:
                self.tick()
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("supervisor waits", reason=error.reason)
            stop.wait(INTERVAL_SECONDS)

    def adopt(self) -> None:
        """After a restart: whoever holds a lease may not have been heard meanwhile, and gets one more."""
        with self._runs.unit() as unit:
            for run in unit.active():
                if run.state is RunState.RUNNING:
                    unit.save(replace(run, lease_expires=self._now() + LEASE))

    def tick(self) -> None:
        """Look once."""
        active = self._runs.active()
        held = set()
        for run in active:
            if run.state is RunState.RUNNING and not self._look_after(run):
                held.add((run.run_id, run.epoch))
        self._stop_leftovers(held)
        if len(held) < len(active):
            for job in self._next_jobs():
                self._launch(job)

    def _look_after(self, run: Run) -> bool:
        """Deal with an end, a silence or a wait of its worker; False where there was none."""
        refusal = self._launcher.refusal(run.run_id, run.epoch)
        code = self._launcher.exit_code(run.run_id, run.epoch)
        if refusal is not None:
            log.warning("worker refused", run_id=run.run_id, epoch=run.epoch, reason=refusal.reason)
            self._change(run, lambda held: fail(held, refusal, self._now()))
        elif code == RETRIABLE_EXIT:
            self._change(run, lambda held: yield_place(held, self._now()))
        elif code is not None:
            log.warning("worker ended", run_id=run.run_id, epoch=run.epoch, exit_code=code)
            self._change(run, lambda held: lose_worker(held, Reason.WORKER_DIED, self._now()))
        else:
            return self._look_at_lease(run)
        return True

    def _look_at_lease(self, run: Run) -> bool:
        lost = run.lease_lost(self._now())
        waiting = self._launcher.waits(run.run_id, run.epoch)
        if waiting is not None:
            if lost or (run.reason, run.message) != (waiting.reason, waiting.message):
                self._change(run, lambda held: wait_for_place(held, waiting, self._now()))
        elif lost:
            log.warning("worker silent", run_id=run.run_id, epoch=run.epoch)
            self._change(run, self._silenced)
        return lost or waiting is not None

    def _silenced(self, run: Run) -> Run:
        # It may have been heard just now.
        return lose_worker(run, Reason.WORKER_SILENT, self._now()) if run.lease_lost(self._now()) else run

    def _change(self, seen: Run, change: Callable[[Run], Run]) -> None:
        """Change the run, unless its worker has reported an end, or another service was quicker."""
        with self._runs.unit() as unit:
            held = unit.get(seen.run_id)
            if held is None or held.state is not RunState.RUNNING or held.epoch != seen.epoch:
                return
            changed = change(held)
            unit.save(changed)
            if changed.state is RunState.FAILED:
                unit.state_failure(changed)

    def _stop_leftovers(self, held: Container[tuple[str, int]]) -> None:
        """Whoever no longer holds a lease must end: cancelled runs, old epochs; also where the service was restarted meanwhile.

        `held` are runs and epochs whose workers were well a moment ago.
        """
        for worker in self._runs.workers():
            if (worker.run_id, worker.epoch) in held:
                continue
            run = self._runs.find(worker.run_id)
            if run is None or (run.state is RunState.RUNNING and run.epoch == worker.epoch):
                continue
            ended = self._launcher.exit_code(worker.run_id, worker.epoch) is not None
            stop_time = worker.stop_time or self._now()
            if ended or self._now() - stop_time > self._launcher.ends_within:
                self._stopped.discard(replace(worker, stop_time=None))
                with self._runs.unit() as unit:
                    unit.drop_worker(worker)
            else:
                self._stop(run, worker, stop_time)

    def _stop(self, run: Run, worker: Worker, stop_time: datetime) -> None:
        if worker.stop_time is None:
            with self._runs.unit() as unit:
                unit.save_worker(replace(worker, stop_time=stop_time))
        known = replace(worker, stop_time=None)
        # A worker that made its adapter, moments ago, removes its checkpoints.
        tidies_up = run.made_under(worker.epoch) and self._now() - stop_time < LEASE
        if known not in self._stopped and not tidies_up:
            self._launcher.stop(worker.run_id, worker.epoch)
            self._stopped.add(known)

    def _next_jobs(self) -> list[Job]:
        """Start the leases of those that go next, and say of the others what they wait for."""
        jobs = []
        busy = {(worker.run_id, worker.epoch) for worker in self._runs.workers()}
        with self._runs.unit() as unit:
            queue = Queue(unit.active(), self._limits, busy, self._now())
            for run in queue.queued:
                failure = queue.take(run)
                if failure is not None:
                    _say(unit, run, failure)
                    continue
                started = start(run, self._now())
                unit.save(started)
                unit.save_worker(Worker(started.run_id, started.epoch))
                jobs.append(Job(started, started.base_digest))
        return jobs

    def _launch(self, job: Job) -> None:
        # The lease is committed first: whoever reads the runs from now on knows that this epoch may live.
        log.info("worker starts", run_id=job.run.run_id, epoch=job.run.epoch, lease_seconds=START_LEASE.seconds)
        try:
            self._launcher.start(job)
        except TailorError as error:
            log.warning("worker not started", run_id=job.run.run_id, reason=error.reason)
            failure = Failure(error.reason, error.message)
            next_state = put_back if error.retryable else fail
            self._change(job.run, lambda held: next_state(held, failure, self._now()))


def _say(unit: Unit, run: Run, failure: Failure) -> None:
    if (run.reason, run.message) != (failure.reason, failure.message):
        unit.save(wait_for(run, failure, run.not_before))
