"""What happens to a run: the rules, as functions from a run to the run that follows."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from services.training.domain import (
    POLICY,
    PREFERENCE,
    REWARD,
    Failure,
    Made,
    Progress,
    Run,
    RunState,
    Stage,
    Trained,
)
from services.training.plans import Plan, Price, Report, error_of
from tailor.errors import Aborted, FailedPrecondition, Reason
from tailor.storage.ref import Ref

LEASE = timedelta(seconds=30)
START_LEASE = timedelta(seconds=180)
LOOK_AGAIN = timedelta(seconds=5)
MAX_ATTEMPTS = 5
BACKOFF_SECONDS = (0, 2, 10, 30, 60)
JITTER = 0.25
EVENT_INTERVAL = timedelta(seconds=2)


def start(run: Run, now: datetime) -> Run:
    """Give the run's present stage to a new worker, under the next epoch."""
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
    """Accept a sign of life. Aborted (STALE_EPOCH) from a worker whose lease went to another, or whose run ended."""
    if run.epoch != epoch or run.state is not RunState.RUNNING:
        raise Aborted(Reason.STALE_EPOCH, "This worker no longer holds the run; stop.", run_id=run.run_id)
    heard = replace(run, lease_expires=now + LEASE, heard_since=run.heard_since or now, heard_last=now)
    return replace(heard, reason="", message="")


def hold(run: Run, now: datetime) -> Run:
    """Give a worker that cannot speak yet more time: it waits for its place, or the service was away."""
    return replace(run, lease_expires=max(run.lease_expires or now, now + START_LEASE))


def wait_for_place(run: Run, waiting: Failure, now: datetime) -> Run:
    """Its worker has no place to run yet: say what for, and let it wait."""
    return replace(hold(run, now), reason=waiting.reason, message=waiting.message)


def advance(run: Run, progress: Progress) -> Run:
    """Take a report in. Getting further than ever forgives earlier failures."""
    further = progress.step > run.best_step
    first = progress.loss if run.first_loss == 0.0 else run.first_loss
    return replace(
        run,
        progress=progress,
        best_step=max(run.best_step, progress.step),
        failures=0 if further else run.failures,
        first_loss=first,
    )


def due_for_event(run: Run, progress: Progress, now: datetime) -> bool:
    """True for the first report, the last of each phase's steps, and else at most one in two seconds."""
    changed = run.progress is None or run.progress.phase != progress.phase
    last = progress.step == progress.total_steps
    return changed or last or run.last_event is None or now - run.last_event >= EVENT_INTERVAL


def lose_worker(run: Run, reason: str, now: datetime) -> Run:
    """The worker is gone. Queue the run again, later each time; fail it after five workers in a row got nowhere."""
    failures = run.failures + 1
    if failures >= MAX_ATTEMPTS:
        failure = Failure(
            reason,
            f"{failures} workers in a row ended without getting further. The run's log says why; where it says nothing, the system killed "
            "them, most often for want of memory: lower batch.tokens, or take a smaller adapter.",
        )
        return fail(replace(run, failures=failures), failure, now)
    again = now + timedelta(seconds=_backoff(run, failures))
    return replace(
        _left(run),
        state=RunState.QUEUED,
        failures=failures,
        not_before=again,
        reason=reason,
        message=f"Its worker ended; another one goes on from the last whole checkpoint, from {again:%H:%M:%S} UTC on.",
    )


def _backoff(run: Run, failures: int) -> float:
    """Seconds to wait; up to a quarter more, another for each run and epoch, so that runs that fell together do not rise together."""
    share = zlib.crc32(f"{run.run_id}-{run.epoch}".encode()) / 2**32
    return BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1] * (1 + JITTER * share)


def yield_place(run: Run, now: datetime) -> Run:
    """The worker was told to make room and saved; that is no failure."""
    waiting = replace(_left(run), state=RunState.QUEUED, not_before=now)
    return replace(waiting, reason="PREEMPTED", message="Its worker was told to make room, and saved.")


def wait_for(run: Run, failure: Failure, until: datetime | None = None) -> Run:
    """Stay queued, saying what for; looked at again from `until` on."""
    return replace(run, reason=failure.reason, message=failure.message, not_before=until)


def not_planned(run: Run, failure: Failure, now: datetime) -> Run:
    """What a plan needs is away; queue the run, saying so, and look again later each time."""
    failures = run.failures + 1
    until = now + max(LOOK_AGAIN, timedelta(seconds=_backoff(run, failures)))
    return replace(wait_for(run, failure, until), failures=failures)


def put_back(run: Run, failure: Failure, now: datetime) -> Run:
    """No worker could be started, for no fault of the run; queue it again, saying why."""
    return wait_for(replace(_left(run), state=RunState.QUEUED), failure, now + LOOK_AGAIN)


def fail(run: Run, failure: Failure, now: datetime) -> Run:
    """End the run without an adapter."""
    ended = replace(_left(run), state=RunState.FAILED, end_time=now)
    return replace(ended, reason=failure.reason, message=failure.message)


def cancel(run: Run, now: datetime) -> Run:
    """End the run by command. FailedPrecondition (RUN_ENDED) where it has ended."""
    if run.state.ended:
        raise FailedPrecondition(
            Reason.RUN_ENDED, f"The run has {run.state.value} and cannot be cancelled.", run_id=run.run_id
        )
    ended = replace(_left(run), state=RunState.CANCELLED, end_time=now)
    return replace(ended, reason="CANCELLED", message="Cancelled by an operator or engineer.")


def queue_again(run: Run) -> Run:
    """A run that was cancelled or failed, queued to go on at the stage and from the checkpoint that it had."""
    waiting = replace(run, state=RunState.QUEUED, end_time=None, failures=0, not_before=None)
    return replace(waiting, needs_plan=True, reason="", message="")


def planned(run: Run, plan: Plan, base_digest: str) -> Run:
    """The run with its forecast."""
    return _ready(replace(run, plan=plan, base_digest=base_digest, needs_plan=False))


def given_rankings(run: Run, dataset: Ref) -> Run:
    """Every stage that waits for a preference dataset learns from this one; what that takes is planned anew."""
    stages = tuple(
        replace(stage, dataset=dataset) if stage.learns_from == PREFERENCE and stage.dataset is None else stage
        for stage in run.stages
    )
    return replace(run, stages=stages, needs_plan=True, reason="", message="")


def given_reward(run: Run, reward: Ref) -> Run:
    """The present stage scores its answers with this reward adapter."""
    return _ready(_with_stage(run, replace(run.current, reward=reward)))


def finish_stage(run: Run, trained: Trained, now: datetime) -> Run:
    """The present stage has its adapter: queue the next stage, or end the run."""
    made = Made(
        trained.digest,
        run.current.kind,
        trained.manifest,
        run.epoch,
        trained.rows,
        trained.tokens,
        trained.steps,
        trained.memory_bytes,
    )
    run = _with_stage(_left(run), replace(run.current, made=made))
    if run.stage == len(run.stages) - 1:
        ended = replace(run, state=RunState.SUCCEEDED, end_time=now, reason="", message="")
        return replace(ended, adapter_digest=trained.digest)
    return _next_stage(run)


def _next_stage(run: Run) -> Run:
    done = run.stage + 1
    waiting = replace(
        run,
        state=RunState.QUEUED,
        stage=done,
        failures=0,
        best_step=0,
        first_loss=0.0,
        not_before=None,
        reason=Reason.NEXT_STAGE,
        message=f"Stage {done} of {len(run.stages)} is made; the next one starts.",
    )
    following = waiting.current
    reward = newest(run.stages, REWARD) if following.wants_reward else None
    return _with_stage(waiting, replace(following, parent=newest(run.stages, POLICY) or run.parent, reward=reward))


def newest(stages: Iterable[Stage], kind: str) -> Ref | None:
    """The manifest of the newest adapter of a kind that these stages made."""
    made = [stage.made.manifest for stage in stages if stage.made is not None and stage.made.kind == kind]
    return made[-1] if made else None


def with_report(run: Run, price: Price) -> Run:
    """The run that ended, with what it took beside its plan."""
    made = [stage.made for stage in run.stages if stage.made is not None]
    tokens, memory = sum(one.tokens for one in made), max((one.memory_bytes for one in made), default=0)
    plan = run.plan
    report = Report(
        rows=sum(one.rows for one in made),
        tokens=tokens,
        steps=sum(one.steps for one in made),
        memory_bytes=memory,
        seconds=run.worked_seconds,
        price=price,
        memory_error=error_of(plan.memory_bytes, memory) if plan else 0.0,
        seconds_error=error_of(plan.seconds, run.worked_seconds) if plan else 0.0,
        tokens_error=error_of(plan.tokens, tokens) if plan else 0.0,
    )
    return replace(run, report=report)


def _ready(run: Run) -> Run:
    """The run, which has what it waited for."""
    return replace(run, failures=0, not_before=None, reason="", message="")


def _with_stage(run: Run, stage: Stage) -> Run:
    return replace(run, stages=(*run.stages[: run.stage], stage, *run.stages[run.stage + 1 :]))


def _left(run: Run) -> Run:
    """The run without its worker, whose time is counted."""
    worked = (run.heard_last - run.heard_since).total_seconds() if run.heard_since and run.heard_last else 0.0
    return replace(
        run, lease_expires=None, heard_since=None, heard_last=None, worked_seconds=run.worked_seconds + worked
    )
