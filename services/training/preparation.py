"""Makes queued runs ready to start: plans them, and finds the reward adapter of their present stage. Both may take seconds."""

import threading
from dataclasses import replace

from services.training.domain import Failure, Run, RunState
from services.training.handlers import Context, does_not_fit, find_reward, make_plan
from services.training.transitions import LOOK_AGAIN, fail, given_reward, not_planned, planned, wait_for
from tailor.errors import Reason, TailorError
from tailor.logging import get_logger

log = get_logger(__name__)

INTERVAL_SECONDS = 1.0


class Preparer:
    """Looks at the runs every second. It holds no transaction while it plans, and two of them on one database only plan twice."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def run(self, stop: threading.Event) -> None:
        """Prepare until told to stop; a lost store or database only delays it."""
        while not stop.is_set():
            try:
                self.tick()
            except TailorError as error:
                if not error.retryable:
                    raise
                log.warning("preparation waits", reason=error.reason)
            stop.wait(INTERVAL_SECONDS)

    def tick(self) -> None:
        """Look once."""
        for run in self._context.runs.active():
            if not run.due(self._context.now()) or run.current.dataset is None:
                continue
            if run.needs_plan or (run.current.wants_reward and run.current.reward is None):
                self._replace(run, self._prepared(run))

    def _prepared(self, run: Run) -> Run:
        now = self._context.now()
        try:
            return self._with_reward(self._with_plan(run))
        except TailorError as error:
            if error.retryable:
                log.warning("run not planned", run_id=run.run_id, reason=error.reason)
                return not_planned(run, Failure(error.reason, error.message), now)
            return fail(run, Failure(error.reason, error.message), now)

    def _with_plan(self, run: Run) -> Run:
        if not run.needs_plan:
            return run
        base = self._context.bases.find(run.key.base)
        if base is None:
            missing = Failure(Reason.WAITS_FOR_BASE, "Its base is not in the models bucket yet.")
            return wait_for(run, missing, self._context.now() + LOOK_AGAIN)
        plan = make_plan(self._context, run, base)
        made = planned(run, plan, base.digest)
        return made if plan.fits else fail(made, does_not_fit(plan), self._context.now())

    def _with_reward(self, run: Run) -> Run:
        stage = run.current
        if run.needs_plan or run.state.ended or not stage.wants_reward or stage.reward is not None:
            return run
        return given_reward(run, find_reward(self._context, run))

    def _replace(self, old: Run, new: Run) -> None:
        """Save what was found, unless something happened to the run meanwhile."""
        with self._context.runs.unit() as unit:
            held = unit.get(old.run_id)
            # What it waits for may have been said anew; that is not what was prepared.
            if held is None or held.state is not RunState.QUEUED or _substance(held) != _substance(old):
                return
            unit.save(new)
            if new.state is RunState.FAILED:
                unit.state_failure(new)


def _substance(run: Run) -> Run:
    return replace(run, reason="", message="")
