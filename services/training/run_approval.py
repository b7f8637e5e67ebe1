"""Runs that are forecast above a limit: somebody approves them, and meanwhile operators see that they wait."""

import math
from collections.abc import Sequence

from services.training.adapters.sql import SqlRuns
from services.training.domain import Run, RunState
from services.training.handlers import TrainingPorts, explain_overspending
from services.training.transitions import approve
from tailor.errors import FailedPrecondition, Reason, Unavailable
from tailor.logging import get_logger

log = get_logger(__name__)

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


def check_waiting_runs(runs: SqlRuns) -> None:
    """Raise FailedPrecondition (WAITS_FOR_APPROVAL) while runs wait: every replica shows the failure of a job as a notice."""
    if message := _describe(runs.awaiting_approval()):
        raise FailedPrecondition(Reason.WAITS_FOR_APPROVAL, message)


def count_waiting_runs(runs: SqlRuns) -> float:
    """The value of the metric; not a number while the database does not answer."""
    try:
        return len(runs.awaiting_approval())
    except Unavailable:
        return math.nan


def _describe(waiting: Sequence[Run]) -> str:
    """The oldest runs, each with what would fit; empty if none waits."""
    sentences = [f"A run of {run.key.specialist!r} waits. {run.message}" for run in waiting[:SHOWN_RUNS]]
    if len(waiting) > SHOWN_RUNS:
        sentences.append(f"{len(waiting) - SHOWN_RUNS} more wait: `tailor run list`.")
    return " ".join(sentences)
