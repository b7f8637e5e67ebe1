"""The queue: which run is next, and what the others wait for. Highest priority first, then oldest."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from services.training.domain import Failure, Run, RunState
from tailor.errors import Reason


@dataclass(frozen=True)
class Limits:
    """How many runs may have a worker at once: in total (None if another queue admits them), and per specialist."""

    runs: int | None = 1
    per_specialist: int = 1


class Queue:
    """A snapshot of all runs that have not ended. `busy` are workers, by run and epoch, that may still be alive."""

    def __init__(self, active: Iterable[Run], limits: Limits, busy: Iterable[tuple[str, int]], now: datetime) -> None:
        runs = list(active)
        self._limits = limits
        self._busy = set(busy)
        self._now = now
        self._running = Counter(run.key.specialist for run in runs if run.state is RunState.RUNNING)
        queued = [run for run in runs if run.state is RunState.QUEUED]
        self.queued = sorted(queued, key=lambda run: (-run.priority, run.create_time, run.run_id))

    def take(self, run: Run) -> Failure | None:
        """Give the run a place. Returns what it waits for instead if it cannot have one yet."""
        failure = self._unready(run) or self._explain_crowding(run.key.specialist)
        if failure is None:
            self._running[run.key.specialist] += 1
        return failure

    def _unready(self, run: Run) -> Failure | None:
        if run.current.dataset is None:
            return Failure(Reason.WAITS_FOR_RANKINGS, "Waits for a preference dataset of its specialist.")
        if not run.due(self._now):
            return Failure(run.reason, run.message)
        if (run.run_id, run.epoch) in self._busy and run.finished_stage_under(run.epoch):
            return Failure(Reason.NEXT_STAGE, "Waits for the worker of its last stage to end.")
        if run.needs_plan or (run.current.wants_reward and run.current.reward is None):
            return Failure(run.reason or Reason.WAITS_FOR_PLAN, run.message or "Waits to be planned.")
        return None

    def _explain_crowding(self, specialist: str) -> Failure | None:
        if self._running[specialist] >= self._limits.per_specialist:
            return Failure(Reason.WAITS_FOR_SPECIALIST, f"Waits for another run of {specialist!r} to end.")
        if self._limits.runs is not None and self._running.total() >= self._limits.runs:
            return Failure(Reason.WAITS_FOR_PLACE, f"Waits for one of {self._limits.runs} places.")
        return None
