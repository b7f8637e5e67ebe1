"""Runs: one run has stages, and one worker at a time, which holds a lease with an epoch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Protocol

from services.training.plans import Plan, Report
from tailor.errors import Reason
from tailor.storage.ref import Ref

RETRIABLE_EXIT = 75  # EX_TEMPFAIL: the worker saved what it had, or lost what it depends on
SFT, PREFERENCE = "sft", "preference"
POLICY, REWARD = "policy", "reward"
DATASET_ERASED = Reason.DATASET_ERASED  # why a run ended that rested on what was erased


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
    """What makes two runs the same: nothing is trained twice. Parent and preference dataset are those that were asked for."""

    specialist: str
    dataset_digest: str
    base: str
    recipe_digest: str
    parent_digest: str = ""
    preference_dataset_digest: str = ""


@dataclass(frozen=True)
class Progress:
    """One report of a worker. Loss is in nats a token; tokens a second are without padding; None is what its method has not."""

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
    stage: int = 0
    memory_bytes: int = 0
    reward: float | None = None
    kl: float | None = None
    accuracy: float | None = None
    held_out_loss: float | None = None


@dataclass(frozen=True)
class LogLine:
    """One line of a worker's log. It holds no text of a document."""

    create_time: datetime
    level: str
    message: str
    epoch: int


@dataclass(frozen=True)
class Trained:
    """The adapter that a worker stored and verified. `metrics` is what it measured of it, by name."""

    digest: str
    manifest: Ref
    base_digest: str
    steps: int
    first_loss: float
    last_loss: float
    tokens_per_second: float
    seconds: float
    rows: int = 0
    tokens: int = 0
    memory_bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a run ended without an adapter, or waits."""

    reason: str
    message: str


@dataclass(frozen=True)
class Made:
    """What a stage made under which epoch, and what that took. `kind` is `policy` or `reward`."""

    digest: str
    kind: str
    manifest: Ref
    epoch: int
    rows: int = 0
    tokens: int = 0
    steps: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class Stage:
    """One method of a run. `learns_from` is the kind of its dataset, which is None while it waits for one. `parent` and `reward` are the
    manifests of the adapters that it starts from and that answers are scored with; None for none, or none yet. `all_weights` makes no
    adapter that another one stands on."""

    recipe: str
    method: str
    recipe_json: str
    learns_from: str
    dataset: Ref | None = None
    parent: Ref | None = None
    all_weights: bool = False
    wants_reward: bool = False
    reward: Ref | None = None
    made: Made | None = None

    @property
    def kind(self) -> str:
        """What the adapter that it makes is for."""
        return REWARD if self.method == "reward" else POLICY


@dataclass(frozen=True)
class Run:
    """One execution of a recipe. `failures` counts starts since the run last got further; `worked_seconds` is the time of workers that
    ended, `heard_since` when the present one was first heard, `heard_last` when last. `base_digest` stands once it is planned;
    `needs_plan` again once it was given another dataset."""

    run_id: str
    key: RunKey
    recipe: str
    stages: tuple[Stage, ...]
    state: RunState
    create_time: datetime
    parent: Ref | None = None
    priority: int = 0
    stage: int = 0
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
    base_digest: str = ""
    needs_plan: bool = True
    worked_seconds: float = 0.0
    heard_since: datetime | None = None
    heard_last: datetime | None = None
    plan: Plan | None = None
    report: Report | None = None

    @property
    def current(self) -> Stage:
        """The stage that runs or waits now; the last one once the run has ended."""
        return self.stages[self.stage]

    @property
    def datasets(self) -> tuple[str, ...]:
        """Digests of all datasets that its stages learn from, each once."""
        return tuple(dict.fromkeys(stage.dataset.sha256 for stage in self.stages if stage.dataset))

    @property
    def preferences(self) -> str:
        """Digest of the preference dataset; empty where there is none, or none yet."""
        found = (stage.dataset for stage in self.stages if stage.learns_from == PREFERENCE and stage.dataset)
        return next((dataset.sha256 for dataset in found), "")

    @property
    def may_go_on(self) -> bool:
        """True where it ended without its adapter, and not because what it rests on was erased."""
        return self.state in {RunState.FAILED, RunState.CANCELLED} and self.reason != DATASET_ERASED

    @property
    def lacks_rankings(self) -> bool:
        """True where a stage waits for a preference dataset."""
        return any(stage.dataset is None for stage in self.stages)

    def made_under(self, epoch: int) -> bool:
        """True where the worker of this epoch made a stage's adapter."""
        return any(stage.made is not None and stage.made.epoch == epoch for stage in self.stages)

    def due(self, now: datetime) -> bool:
        """True where a worker may be started."""
        return self.state is RunState.QUEUED and (self.not_before is None or self.not_before <= now)

    def lease_lost(self, now: datetime) -> bool:
        """True where its worker has been silent for too long."""
        return self.state is RunState.RUNNING and (self.lease_expires is None or self.lease_expires <= now)


@dataclass(frozen=True)
class Base:
    """A base in the models bucket. `digest` is its manifest's SHA-256."""

    name: str
    digest: str
    licence: str
    parameters: int
    size_bytes: int
    manifest: Ref


@dataclass(frozen=True)
class Dataset:
    """A dataset of a specialist, of kind `sft` or `preference`, with the teacher's tokens and the judgements that went into it."""

    manifest: Ref
    kind: str
    specialist: str
    teacher_tokens: int = 0
    judgements: int = 0


@dataclass(frozen=True)
class Adapter:
    """An adapter in the models bucket, as its manifest describes it. `weights` is `adapter`, or `full` where all weights were trained;
    `shape` is the part `[adapter]` of its recipe."""

    manifest: Ref
    kind: str
    weights: str
    specialist: str
    base: str
    shape: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Worker:
    """A worker that was started and may still live. `stop_time` is when it was first seen to be wanted no longer."""

    run_id: str
    epoch: int
    stop_time: datetime | None = None


@dataclass(frozen=True)
class Job:
    """What a worker has to be started with: the run, at its present stage."""

    run: Run
    base_digest: str

    @property
    def stage(self) -> Stage:
        """The stage to work on."""
        return self.run.current

    @property
    def name(self) -> str:
        """Names this start of this run."""
        return f"{self.run.run_id}-{self.run.epoch}"


class Launcher(Protocol):
    """Starts and stops workers, somewhere. A worker is named by run and epoch. Every method may raise Unavailable."""

    @property
    def ends_within(self) -> timedelta:
        """A worker that was told to end has ended after this time: what it gets to save, and what killing it takes."""
        ...

    def start(self, job: Job) -> None:
        """Start a worker; a worker of the same name is not started again."""
        ...

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """How the worker ended; None while it runs, waits for a place, or is not known here."""
        ...

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """What the worker waits for while it has been given no place to run yet; None once it has."""
        ...

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why no worker of this run would do better, such as an image that is not there; None where one may."""
        ...

    def stop(self, run_id: str, epoch: int) -> None:
        """Tell the worker to end; nothing where it has."""
        ...

    def stop_all(self) -> None:
        """Tell every worker to save and end, and wait for them. Called when the service stops."""
        ...
