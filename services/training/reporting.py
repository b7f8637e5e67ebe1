"""Reports of workers. Every function raises Aborted (STALE_EPOCH) if the worker no longer holds the run, NotFound for an unknown run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from services.training.adapters.sql import SqlRuns, SqlUnit
from services.training.domain import Failure, LogLine, Progress, Run, RunState, TrainedAdapter
from services.training.plans import Price, Rates, price_compute
from services.training.transitions import advance, fail, finish_stage, is_event_due, renew, report_cost
from tailor.errors import InvalidArgument, Reason

MAX_LINES = 100
MAX_LINE_LENGTH = 1000


def heartbeat(runs: SqlRuns, run_id: str, epoch: int, now: datetime) -> bool:
    """Renew the worker's lease. True if the worker must stop."""
    return _report(runs, run_id, epoch, lambda unit, run: unit.save(renew(run, epoch, now)))


def report_progress(runs: SqlRuns, run_id: str, epoch: int, progress: Progress, now: datetime) -> bool:
    """Store a report and renew the lease. True if the worker must stop. A loss that is not finite fails the run (DIVERGED)."""
    if not math.isfinite(progress.loss):
        message = f"The loss is not a finite number at step {progress.step}. Lower optimizer.learning_rate."
        report_failed(runs, run_id, epoch, Failure("DIVERGED", message), now)
        return True

    def advance_run(unit: SqlUnit, run: Run) -> None:
        of_stage = replace(progress, stage=run.stage)
        publishes = is_event_due(run, of_stage, now)
        run = advance(renew(run, epoch, now), of_stage)
        unit.add_report(run, of_stage)
        if publishes:
            unit.publish_progress(run, of_stage)
            run = replace(run, last_event=now)
        unit.save(run)

    return _report(runs, run_id, epoch, advance_run)


def report_log(runs: SqlRuns, run_id: str, epoch: int, lines: Sequence[LogLine], now: datetime) -> bool:
    """Store log lines and renew the lease. True if the worker must stop. Raises InvalidArgument (TOO_MANY_LINES) over 100 lines."""
    if len(lines) > MAX_LINES:
        raise InvalidArgument(Reason.TOO_MANY_LINES, f"A report may have at most {MAX_LINES} lines. Send several.")

    def add_lines(unit: SqlUnit, run: Run) -> None:
        unit.save(renew(run, epoch, now))
        unit.add_log(run, [replace(line, message=line.message[:MAX_LINE_LENGTH]) for line in lines])

    return _report(runs, run_id, epoch, add_lines)


def report_trained(
    runs: SqlRuns, run_id: str, epoch: int, trained: TrainedAdapter, *, rates: Rates, now: datetime
) -> bool:
    """Publish the stage's adapter, then queue the next stage or end the run. Idempotent. True if the worker must stop."""

    def finish(unit: SqlUnit, run: Run) -> None:
        if run.epoch == epoch and any(stage.result and stage.result.digest == trained.digest for stage in run.stages):
            return
        run = renew(run, epoch, now)
        unit.publish_adapter(run, trained, now)
        run = finish_stage(run, trained, now)
        unit.save(report_cost(run, _actual_price(rates, run)) if run.state is RunState.SUCCEEDED else run)
        if run.state is RunState.FAILED:
            unit.publish_failure(run)

    return _report(runs, run_id, epoch, finish)


def report_failed(runs: SqlRuns, run_id: str, epoch: int, failure: Failure, now: datetime) -> bool:
    """End a run that cannot succeed, and publish that. Idempotent. True if the worker must stop."""

    def end(unit: SqlUnit, run: Run) -> None:
        if run.state is not RunState.FAILED or run.epoch != epoch:
            run = fail(renew(run, epoch, now), failure, now)
            unit.save(run)
            unit.publish_failure(run)

    return _report(runs, run_id, epoch, end)


def _report(runs: SqlRuns, run_id: str, epoch: int, apply: Callable[[SqlUnit, Run], None]) -> bool:
    """Apply a worker's report to its run in one transaction. True if the run was cancelled: the worker must stop."""
    with runs.unit() as unit:
        run = unit.get(run_id)
        if run.state is RunState.CANCELLED and run.epoch == epoch:
            return True
        apply(unit, run)
    return False


def _actual_price(rates: Rates, run: Run) -> Price:
    """Price of the run's time, and of its datasets as the plan has it."""
    if run.plan is None:
        return Price(rates.currency, price_compute(rates, 1, run.worked_seconds))
    return replace(run.plan.price, compute=price_compute(rates, run.plan.devices, run.worked_seconds))
