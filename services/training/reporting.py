"""What training does on a worker's word. Aborted (STALE_EPOCH) for every word of a worker that no longer holds the run."""

import math
from collections.abc import Sequence
from dataclasses import replace

from services.training.domain import Failure, LogLine, Progress, Run, RunState, Trained
from services.training.handlers import Context, locked
from services.training.plans import Price, Rates, compute_price
from services.training.transitions import advance, due_for_event, fail, finish_stage, renew, with_report
from tailor.errors import InvalidArgument, Reason

MAX_LINES = 100
MAX_LINE_LENGTH = 1000


def heartbeat(context: Context, run_id: str, epoch: int) -> bool:
    """Renew a lease; True where the worker must stop."""
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        unit.save(renew(run, epoch, context.now()))
    return False


def report_progress(context: Context, run_id: str, epoch: int, progress: Progress) -> bool:
    """Keep a report and renew the lease; True where the worker must stop. A loss that is no number fails the run."""
    if not math.isfinite(progress.loss):
        message = f"The loss is no number at step {progress.step}; lower optimizer.learning_rate."
        report_failed(context, run_id, epoch, Failure("DIVERGED", message))
        return True
    now = context.now()
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        progress = replace(progress, stage=run.stage)
        stated = due_for_event(run, progress, now)
        run = advance(renew(run, epoch, now), progress)
        unit.add_report(run, progress)
        if stated:
            unit.state_progress(run, progress)
            run = replace(run, last_event=now)
        unit.save(run)
    return False


def report_log(context: Context, run_id: str, epoch: int, lines: Sequence[LogLine]) -> bool:
    """Keep lines of a worker's log and renew its lease; True where the worker must stop. InvalidArgument (TOO_MANY_LINES) over 100."""
    if len(lines) > MAX_LINES:
        raise InvalidArgument(Reason.TOO_MANY_LINES, f"A report holds at most {MAX_LINES} lines; send more of them.")
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        unit.save(renew(run, epoch, context.now()))
        unit.add_log(run, [replace(line, message=line.message[:MAX_LINE_LENGTH]) for line in lines])
    return False


def report_trained(context: Context, run_id: str, epoch: int, trained: Trained) -> bool:
    """State the stage's adapter; queue the next stage or end the run. The same report again changes nothing."""
    now = context.now()
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        if run.epoch == epoch and any(stage.made and stage.made.digest == trained.digest for stage in run.stages):
            return False
        run = renew(run, epoch, now)
        unit.state_adapter(run, trained, now)
        run = finish_stage(run, trained, now)
        unit.save(with_report(run, _price(context.rates, run)) if run.state is RunState.SUCCEEDED else run)
    return False


def report_failed(context: Context, run_id: str, epoch: int, failure: Failure) -> bool:
    """End a run that cannot succeed, and state it. The same report again changes nothing."""
    with context.runs.unit() as unit:
        run = locked(unit, run_id)
        if _told_to_stop(run, epoch):
            return True
        if run.state is RunState.FAILED and run.epoch == epoch:
            return False
        run = fail(renew(run, epoch, context.now()), failure, context.now())
        unit.save(run)
        unit.state_failure(run)
    return False


def _price(rates: Rates, run: Run) -> Price:
    """What the run cost: its time, and what went into its datasets, which the plan found."""
    if run.plan is None:
        return Price(rates.currency, compute_price(rates, 1, run.worked_seconds))
    return replace(run.plan.price, compute=compute_price(rates, run.plan.devices, run.worked_seconds))


def _told_to_stop(run: Run, epoch: int) -> bool:
    return run.state is RunState.CANCELLED and run.epoch == epoch
