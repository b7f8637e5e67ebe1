"""The rules of a run's life: pure functions from a run to the run that follows."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from services.training.domain import (
    HELD_OUT_REWARD,
    POLICY,
    PREFERENCE,
    REWARD,
    Base,
    Failure,
    Progress,
    Run,
    RunState,
    Stage,
    TrainedAdapter,
)
from services.training.plans import Plan, Price, RunReport, explain_limit, forecast_error
from services.training.recipe import GENERATING
from services.training.spending import count_worked_seconds, first_of_month
from tailor.errors import Aborted, FailedPrecondition, Reason
from tailor.storage.ref import Ref

LEASE = timedelta(seconds=30)
START_LEASE = timedelta(seconds=180)
RECHECK_INTERVAL = timedelta(seconds=5)
MAX_ATTEMPTS = 5
# Exit codes of a worker that SIGKILL ended: of a process, and of a pod.
KILLED = (-9, 137)
BACKOFF_SECONDS = (0, 2, 10, 30, 60)
JITTER = 0.25
EVENT_INTERVAL = timedelta(seconds=2)


def start(run: Run, now: datetime) -> Run:
    """Hand the current stage to a new worker, under the next epoch."""
    return replace(
        run,
        state=RunState.RUNNING,
        epoch=run.epoch + 1,
        lease_expires=now + START_LEASE,
        not_before=None,
        reason="",
        message="",
        start_time=run.start_time or now,
    )


def renew(run: Run, epoch: int, now: datetime) -> Run:
    """Renew the lease of the worker that reported. Raises Aborted (STALE_EPOCH) if another worker holds it or the run has ended."""
    if run.epoch != epoch or run.state is not RunState.RUNNING:
        raise Aborted(Reason.STALE_EPOCH, "This worker no longer holds the run. Stop.", run_id=run.run_id)
    run = _enter_month(run, now)
    if run.stopping is None:
        return replace(
            run, lease_expires=now + LEASE, heard_since=run.heard_since or now, heard_last=now, reason="", message=""
        )
    # What it takes to save is not counted, like the last seconds of a cancelled run.
    return replace(run, lease_expires=now + LEASE, reason=run.stopping.reason, message=run.stopping.message)


def _enter_month(run: Run, now: datetime) -> Run:
    """The run at work: in a new month, what it has taken so far belongs to the earlier ones."""
    month = first_of_month(now)
    if run.month is None or run.month == month:
        return replace(run, month=month)
    return replace(run, month=month, seconds_before_month=count_worked_seconds(run))


def stop_worker(run: Run, failure: Failure) -> Run:
    """The worker was asked to save and end. The run fails then."""
    return replace(run, stopping=failure, reason=failure.reason, message=failure.message)


def extend_lease(run: Run, now: datetime) -> Run:
    """Give more time to a worker that cannot report yet: it waits to be placed, or the service was down."""
    return replace(run, lease_expires=max(run.lease_expires or now, now + START_LEASE))


def wait_for_place(run: Run, waiting: Failure, now: datetime) -> Run:
    """The worker has not been placed yet: record why, and extend its lease."""
    if run.stopping:
        return fail(run, run.stopping, now)
    return replace(extend_lease(run, now), reason=waiting.reason, message=waiting.message)


def advance(run: Run, progress: Progress) -> Run:
    """Apply a progress report. Reaching a new furthest step resets the failure count."""
    return replace(
        run,
        progress=progress,
        best_step=max(run.best_step, progress.step),
        failures=0 if progress.step > run.best_step else run.failures,
        first_loss=progress.loss if run.first_loss == 0.0 else run.first_loss,
    )


def is_event_due(run: Run, progress: Progress, now: datetime) -> bool:
    """True for the first report, for a new phase, for the last step, and otherwise every two seconds."""
    changed = run.progress is None or run.progress.phase != progress.phase
    last = progress.step == progress.total_steps
    return changed or last or run.last_event is None or now - run.last_event >= EVENT_INTERVAL


def lose_worker(run: Run, reason: str, now: datetime, exit_code: int | None = None) -> Run:
    """The worker is gone. Requeue the run with a growing delay; fail it after five workers in a row without progress.

    A worker with another exit code than that of SIGKILL was not killed for lack of memory.
    """
    if run.stopping:
        return fail(run, run.stopping, now)
    failures = run.failures + 1
    if failures >= MAX_ATTEMPTS:
        failure = Failure(
            reason,
            f"{failures} workers in a row ended without progress. {_explain_end(exit_code)}",
        )
        return fail(replace(run, failures=failures), failure, now)
    again = now + timedelta(seconds=_backoff(run, failures))
    return replace(
        _without_worker(run),
        state=RunState.QUEUED,
        failures=failures,
        not_before=again,
        reason=reason,
        message=f"Its worker ended. Another one resumes from the last complete checkpoint, not before {again:%H:%M:%S} UTC.",
    )


def _explain_end(exit_code: int | None) -> str:
    if exit_code is None or exit_code in KILLED:
        return (
            "The run's log says why. If it does not, the system killed them, most often for lack of memory: lower batch.tokens, or use a "
            "smaller adapter."
        )
    return f"The last one failed with exit code {exit_code}. The run's log has the error."


def _backoff(run: Run, failures: int) -> float:
    """Seconds to wait, with up to 25 % jitter by run and epoch, so that runs that failed together do not retry together."""
    share = zlib.crc32(f"{run.run_id}-{run.epoch}".encode()) / 2**32
    return BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1] * (1 + JITTER * share)


def requeue_preempted(run: Run, now: datetime) -> Run:
    """The worker was preempted and saved its state. Does not count as a failure."""
    if run.stopping:
        return fail(run, run.stopping, now)
    queued = replace(_without_worker(run), state=RunState.QUEUED, not_before=now)
    return replace(queued, reason="PREEMPTED", message="Its worker was preempted and saved its state.")


def keep_waiting(run: Run, failure: Failure, until: datetime | None = None) -> Run:
    """Stay queued and record why. The run is not looked at before `until`."""
    return replace(run, reason=failure.reason, message=failure.message, not_before=until)


def defer_planning(run: Run, failure: Failure, now: datetime) -> Run:
    """Stay queued with a growing delay, because a dependency of planning is unavailable."""
    failures = run.failures + 1
    until = now + max(RECHECK_INTERVAL, timedelta(seconds=_backoff(run, failures)))
    return replace(keep_waiting(run, failure, until), failures=failures)


def requeue(run: Run, failure: Failure, now: datetime) -> Run:
    """No worker could be started, through no fault of the run: queue it again and record why."""
    return keep_waiting(replace(_without_worker(run), state=RunState.QUEUED), failure, now + RECHECK_INTERVAL)


def fail(run: Run, failure: Failure, now: datetime) -> Run:
    """End the run without an adapter."""
    ended = replace(_without_worker(run), state=RunState.FAILED, end_time=now)
    return replace(ended, reason=failure.reason, message=failure.message)


def cancel(run: Run, now: datetime) -> Run:
    """End the run on request. Raises FailedPrecondition (RUN_ENDED) if it has ended."""
    if run.state.ended:
        raise FailedPrecondition(
            Reason.RUN_ENDED, f"The run is {run.state.value} and cannot be cancelled.", run_id=run.run_id
        )
    ended = replace(_without_worker(run), state=RunState.CANCELLED, end_time=now)
    return replace(ended, reason="CANCELLED", message="Cancelled by an operator or engineer.")


def supersede(run: Run, successor: str, now: datetime) -> Run:
    """End a waiting run, because a run on newer datasets takes its place."""
    message = f"The run {successor} takes its place: it learns from newer datasets of the specialist."
    return replace(cancel(run, now), reason=Reason.SUPERSEDED, message=message)


def resume(run: Run) -> Run:
    """Queue a cancelled or failed run again, at its stage and from its checkpoint."""
    queued = replace(run, state=RunState.QUEUED, end_time=None, failures=0, not_before=None)
    return replace(queued, needs_plan=True, reason="", message="")


def assign_plan(run: Run, plan: Plan, base: Base) -> Run:
    """The run with its forecast on a base. It waits for approval if the forecast is above the limit and nobody has approved it yet."""
    planned = replace(run, plan=plan, seconds_before_plan=count_worked_seconds(run), needs_plan=False)
    planned = _clear_waiting(replace(planned, base_digest=base.digest, base_adapter=base.adapter_digest))
    if not plan.needs_approval or run.approve_time is not None:
        return planned
    waiting = replace(planned, state=RunState.AWAITING_APPROVAL, reason=Reason.WAITS_FOR_APPROVAL)
    return replace(waiting, message=f"{explain_limit(plan)} {_advise(run.run_id, plan)}")


def _advise(run_id: str, plan: Plan) -> str:
    approve = f"Approve the run with `tailor run approve {run_id}`"
    if not plan.fitting_train_tokens:
        return f"{approve}, or use a smaller recipe or base."
    return (
        f"{approve}, or make it fit: set `max_train_tokens = {plan.fitting_train_tokens:_}` under `[rows]` in the specialist's definition "
        "with `tailor specialist update FILE`, and build again."
    )


def approve(run: Run, approved_by: str, now: datetime) -> Run:
    """Queue a run that waits for approval, and record who approved it. Raises FailedPrecondition (RUN_NOT_WAITING) if it does not wait."""
    if run.state is not RunState.AWAITING_APPROVAL:
        raise FailedPrecondition(
            Reason.RUN_NOT_WAITING,
            f"The run is {run.state.value.replace('_', ' ')} and does not wait for approval. `tailor run show {run.run_id}` shows it.",
            run_id=run.run_id,
        )
    return _clear_waiting(replace(run, state=RunState.QUEUED, approve_time=now, approved_by=approved_by))


def assign_rankings(run: Run, dataset: Ref) -> Run:
    """Give the preference dataset to every stage that waits for one. The run needs a new plan."""
    stages = tuple(
        replace(stage, dataset=dataset) if stage.learns_from == PREFERENCE and stage.dataset is None else stage
        for stage in run.stages
    )
    # The new forecast decides again whether it needs approval.
    state = RunState.QUEUED if run.state is RunState.AWAITING_APPROVAL else run.state
    return replace(run, state=state, stages=stages, needs_plan=True, reason="", message="")


def assign_reward(run: Run, reward: Ref) -> Run:
    """The current stage scores its answers with this reward adapter."""
    return _clear_waiting(_replace_stage(run, replace(run.current, reward=reward)))


def reuse_stage(run: Run, result: TrainedAdapter) -> Run:
    """Take an earlier run's adapter as the result of the current stage, and go on with the next stage."""
    run = _replace_stage(run, replace(run.current, result=replace(result, epoch=0)))
    return _clear_waiting(_queue_next_stage(run))


def finish_stage(run: Run, trained: TrainedAdapter, now: datetime) -> Run:
    """Record the current stage's adapter, then queue the next stage or end the run."""
    result = replace(trained, kind=run.current.kind, epoch=run.epoch, message=b"")
    stopping = run.stopping
    run = _replace_stage(_without_worker(run), replace(run.current, result=result))
    if run.stage == len(run.stages) - 1:
        ended = replace(run, state=RunState.SUCCEEDED, end_time=now, reason="", message="")
        return replace(ended, adapter_digest=trained.digest)
    queued = _queue_next_stage(run)
    return fail(queued, stopping, now) if stopping else queued


def _queue_next_stage(run: Run) -> Run:
    done = run.stage + 1
    queued = replace(
        run,
        state=RunState.QUEUED,
        stage=done,
        failures=0,
        best_step=0,
        first_loss=0.0,
        not_before=None,
        reason=Reason.NEXT_STAGE,
        message=f"Stage {done} of {len(run.stages)} is complete. The next one starts.",
    )
    stage = queued.current
    reward = newest_result(run.stages, REWARD) if stage.wants_reward else None
    held_out_reward = newest_result(run.stages, HELD_OUT_REWARD) if stage.method in GENERATING else None
    parent = newest_result(run.stages, POLICY) or run.parent
    return _replace_stage(queued, replace(stage, parent=parent, reward=reward, held_out_reward=held_out_reward))


def newest_result(stages: Iterable[Stage], kind: str) -> Ref | None:
    """The manifest of the newest adapter of a kind that these stages produced."""
    manifests = [stage.result.manifest for stage in stages if stage.result is not None and stage.result.kind == kind]
    return manifests[-1] if manifests else None


def report_cost(run: Run, price: Price) -> Run:
    """The run that ended, with a report of what it took compared with its plan."""
    results = [stage.result for stage in run.worked_stages if stage.result is not None]
    tokens = sum(result.tokens for result in results)
    memory = max((result.memory_bytes for result in results), default=0)
    plan = run.plan
    report = RunReport(
        rows=sum(result.rows for result in results),
        rows_skipped=sum(result.rows_skipped for result in results),
        tokens=tokens,
        steps=sum(result.steps for result in results),
        memory_bytes=memory,
        seconds=run.worked_seconds,
        price=price,
        memory_error=forecast_error(plan.memory_bytes, memory) if plan else 0.0,
        seconds_error=forecast_error(plan.seconds, run.worked_seconds) if plan else 0.0,
        tokens_error=forecast_error(plan.tokens, tokens) if plan else 0.0,
    )
    return replace(run, report=report)


def _clear_waiting(run: Run) -> Run:
    """The run got what it waited for."""
    return replace(run, failures=0, not_before=None, reason="", message="")


def _replace_stage(run: Run, stage: Stage) -> Run:
    return replace(run, stages=(*run.stages[: run.stage], stage, *run.stages[run.stage + 1 :]))


def _without_worker(run: Run) -> Run:
    """The run without its worker, whose time is added up."""
    ended = replace(run, lease_expires=None, heard_since=None, heard_last=None, stopping=None)
    return replace(ended, worked_seconds=count_worked_seconds(run))
