"""Runs that are forecast above a limit: somebody approves them, and meanwhile operators see that they wait."""

from collections.abc import Sequence

from services.training.adapters.sql import SqlRuns
from services.training.domain import Run, RunState
from services.training.handlers import TrainingPorts, explain_overspending
from services.training.transitions import approve
from tailor.errors import FailedPrecondition, Reason
from tailor.events.faults import Faults
from tailor.logging import get_logger
from tailor.telemetry import RUNS_AWAITING_APPROVAL

log = get_logger(__name__)

# What the notice is about.
PART = "run approval"
SHOWN_RUNS = 3


def approve_run(ports: TrainingPorts, run_id: str, approved_by: str) -> Run:
    """Queue a run that waits for approval. Idempotent until the run has ended.

    `approved_by` is the key or person, or empty for the operator of the console. Raises NotFound (UNKNOWN_RUN), FailedPrecondition
    (RUN_NOT_WAITING), or (OVER_BUDGET) if its forecast is above what is left of the specialist's budget. Blocks.
    """
    run = ports.runs.get(run_id)
    if run.approve_time is not None and not run.state.ended:
        return run
    with ports.budget_lock:
        overspending = explain_overspending(ports, run, run.plan) if run.plan is not None else None
        if overspending is not None and run.state is RunState.AWAITING_APPROVAL:
            raise FailedPrecondition(Reason.OVER_BUDGET, overspending.message, run_id=run_id)
        with ports.runs.unit() as unit:
            approved = approve(unit.get(run_id), approved_by, ports.now())
            unit.save(approved)
    log.info("run approved", run_id=run_id, key_id=approved_by)
    return approved


class ApprovalNotice:
    """Says which runs wait for approval: as a notice of the service, which `tailor status` shows, and as a metric."""

    def __init__(self, runs: SqlRuns, faults: Faults) -> None:
        self._runs = runs
        self._faults = faults
        self._shown = ""

    def tick(self) -> None:
        """Look once."""
        waiting = [run for run in self._runs.active() if run.state is RunState.AWAITING_APPROVAL]
        RUNS_AWAITING_APPROVAL.set(len(waiting))
        message = _describe(waiting)
        if message == self._shown:
            return
        self._shown = message
        if message:
            self._faults.notice(PART, FailedPrecondition(Reason.WAITS_FOR_APPROVAL, message))
        else:
            self._faults.clear(PART)


def _describe(waiting: Sequence[Run]) -> str:
    """The oldest runs, each with what would fit; empty if none waits."""
    sentences = [f"A run of {run.key.specialist!r} waits. {run.message}" for run in waiting[:SHOWN_RUNS]]
    if len(waiting) > SHOWN_RUNS:
        sentences.append(f"{len(waiting) - SHOWN_RUNS} more wait: `tailor run list`.")
    return " ".join(sentences)
