"""Keeps one run going: starts a worker for what is queued, and another one where a worker was lost."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from services.training.domain import (
    LEASE,
    RETRIABLE_EXIT,
    START_LEASE,
    Bases,
    Failure,
    Job,
    Launcher,
    Run,
    Runs,
    RunState,
    Unit,
    hold,
    lose_worker,
    start,
    wait_for,
    yield_place,
)
from tailor.errors import TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL_SECONDS = 0.5


class Supervisor:
    """Looks at the runs every half second. A restarted service finds a live worker by its lease, and leaves it be."""

    def __init__(self, runs: Runs, bases: Bases, launcher: Launcher, now: Callable[[], datetime]) -> None:
        self._runs = runs
        self._bases = bases
        self._launcher = launcher
        self._now = now
        self._started: set[tuple[str, int]] = set()

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
        with self._runs.unit() as unit:
            active = unit.active()
            for run in active:
                self._look_after(unit, run)
        self._stop_leftovers({(run.run_id, run.epoch) for run in active if run.state is RunState.RUNNING})
        job = self._next_job()
        if job is not None:
            self._launch(job)

    def _look_after(self, unit: Unit, run: Run) -> None:
        if run.state is not RunState.RUNNING:
            return
        code = self._launcher.exit_code(run.run_id, run.epoch)
        if code == RETRIABLE_EXIT:
            self._change(unit, run, yield_place(run, self._now()))
        elif code is not None:
            log.warning("worker ended", run_id=run.run_id, epoch=run.epoch, exit_code=code)
            self._change(unit, run, lose_worker(run, "WORKER_DIED", self._now()))
        elif not run.lease_lost(self._now()):
            return
        elif self._launcher.waits(run.run_id, run.epoch):
            unit.save(hold(run, self._now()))
        else:
            log.warning("worker silent", run_id=run.run_id, epoch=run.epoch)
            self._change(unit, run, lose_worker(run, "WORKER_SILENT", self._now()))

    def _change(self, unit: Unit, old: Run, new: Run) -> None:
        self._started.add((old.run_id, old.epoch))
        unit.save(new)
        if new.state is RunState.FAILED:
            unit.state_failure(new)

    def _stop_leftovers(self, running: set[tuple[str, int]]) -> None:
        """Whoever no longer holds a lease must end: cancelled runs, old epochs. `running` was read before this look."""
        for run_id, epoch in [worker for worker in self._started if worker not in running]:
            if self._tidies_up(run_id, epoch):
                continue
            self._launcher.stop(run_id, epoch)
            self._started.discard((run_id, epoch))

    def _tidies_up(self, run_id: str, epoch: int) -> bool:
        """True while a worker that succeeded, moments ago, removes its checkpoints."""
        run = self._runs.find(run_id)
        if run is None or run.state is not RunState.SUCCEEDED or run.epoch != epoch or run.end_time is None:
            return False
        recent = self._now() - run.end_time < LEASE
        return recent and self._launcher.exit_code(run_id, epoch) is None

    def _next_job(self) -> Job | None:
        with self._runs.unit() as unit:
            active = unit.active()
            if any(run.state is RunState.RUNNING for run in active):
                return None
            for run in active:
                if not run.due(self._now()):
                    continue
                base = self._bases.find(run.key.base)
                if base is None:
                    unit.save(
                        wait_for(
                            run, Failure("WAITS_FOR_BASE", "Its base is not in the models bucket yet."), self._now()
                        )
                    )
                    continue
                started = start(run, self._now())
                unit.save(started)
                return Job(started, base.digest)
        return None

    def _launch(self, job: Job) -> None:
        # The lease is committed first: whoever reads the runs from now on knows that this epoch may live.
        log.info("worker starts", run_id=job.run.run_id, epoch=job.run.epoch, lease_seconds=START_LEASE.seconds)
        self._started.add((job.run.run_id, job.run.epoch))
        try:
            self._launcher.start(job)
        except TailorError as error:
            log.warning("worker not started", run_id=job.run.run_id, reason=error.reason)
            with self._runs.unit() as unit:
                run = unit.get(job.run.run_id)
                if run is not None and run.state is RunState.RUNNING and run.epoch == job.run.epoch:
                    self._change(unit, run, lose_worker(run, error.reason, self._now()))
