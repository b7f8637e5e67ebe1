"""Runs as the console shows them: stages, the queue, and the plan beside reality. Times are UTC."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

RUNNING = "running"
QUEUED = "queued"


@dataclass(frozen=True)
class Progress:
    """Where a run's present stage stands. Loss in nats per token; what the method does not have, or was not measured, is None."""

    phase: str
    step: int
    total_steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    remaining_seconds: float
    stage: int = 0
    memory_bytes: int = 0
    reward: float | None = None
    kl: float | None = None
    accuracy: float | None = None
    held_out_loss: float | None = None


@dataclass(frozen=True)
class Stage:
    """One method of a run, and what it made. The kind is empty before."""

    recipe: str
    method: str
    dataset_digest: str = ""
    parent_digest: str = ""
    adapter_digest: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Price:
    """A sum with its parts."""

    currency: str = ""
    total: float = 0.0
    compute: float = 0.0
    teacher: float = 0.0
    annotation: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What a run was forecast to take. `seconds_from` is `measured` or `estimated`."""

    rows: int
    tokens: int
    steps: int
    memory_bytes: int
    device_memory_bytes: int
    device: str
    seconds: float
    seconds_from: str
    price: Price = Price()
    refusal: str = ""
    nearest_recipe: str = ""
    create_time: datetime | None = None


@dataclass(frozen=True)
class Report:
    """What a run took, and by how much the forecast was wrong: 0.1 is ten percent too much."""

    rows: int
    tokens: int
    steps: int
    memory_bytes: int
    seconds: float
    price: Price
    memory_error: float
    seconds_error: float
    tokens_error: float


@dataclass(frozen=True)
class Run:
    """One execution of a recipe on a dataset."""

    run_id: str
    specialist: str
    dataset_digest: str
    base: str
    recipe: str
    state: str
    reason: str = ""
    message: str = ""
    progress: Progress | None = None
    adapter_digest: str = ""
    epoch: int = 0
    first_loss: float = 0.0
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    parent_digest: str = ""
    priority: int = 0
    stages: tuple[Stage, ...] = ()
    stage: int = 0
    plan: Plan | None = None
    report: Report | None = None

    @property
    def ended(self) -> bool:
        """True once nothing more will come."""
        return self.state in {"succeeded", "failed", "cancelled"}

    def state_of(self, number: int) -> str:
        """Where a stage is: `made`, the run's own state for the present one, and `not started` for those that follow."""
        if self.stages[number].adapter_digest:
            return "made"
        return self.state if number == self.stage else "not started"


@dataclass(frozen=True)
class LogLine:
    """One line of a worker's log."""

    create_time: datetime | None
    level: str
    message: str
    epoch: int


@dataclass(frozen=True)
class Watched:
    """A run as it stands, with the lines that its workers wrote since the last one."""

    run: Run
    lines: tuple[LogLine, ...] = ()


@dataclass(frozen=True)
class Compared:
    """One figure of the plan beside reality; None is not known (yet). The unit is `count`, `bytes`, `seconds`, or a currency."""

    name: str
    unit: str
    forecast: float | None
    used: float | None
    error: float | None = None


def queue(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Those that wait, in the order in which they get a place: highest priority first, then the oldest."""
    waiting = [run for run in runs if run.state == QUEUED]
    return tuple(sorted(waiting, key=lambda run: (-run.priority, str(run.create_time), run.run_id)))


def compared(run: Run, now: datetime) -> tuple[Compared, ...]:
    """The plan beside what was used; while the run goes on, beside what is known so far."""
    plan = run.plan
    if plan is None:
        return ()
    forecast = (plan.rows, plan.tokens, plan.steps, plan.memory_bytes, plan.seconds, plan.price.total)
    used, errors = _used(run, plan, now), _errors(run, plan)
    names = ("rows", "tokens", "steps", "memory", "time", "price")
    units = ("count", "count", "count", "bytes", "seconds", plan.price.currency)
    return tuple(map(Compared, names, units, forecast, used, errors))


def _used(run: Run, plan: Plan, now: datetime) -> tuple[float | None, ...]:
    if run.report:
        said = run.report
        return (said.rows, said.tokens, said.steps, said.memory_bytes, said.seconds, said.price.total)
    if run.start_time is None:
        return (None,) * 6
    progress = run.progress
    # The steps of earlier stages are not told.
    steps = progress.step if progress and run.stage == 0 else None
    memory = progress.memory_bytes or None if progress else None
    seconds = ((run.end_time or now) - run.start_time).total_seconds()
    price = plan.price
    spent = price.teacher + price.annotation + price.compute * seconds / plan.seconds if plan.seconds else None
    return (None, None, steps, memory, seconds, spent)


def _errors(run: Run, plan: Plan) -> tuple[float | None, ...]:
    if run.report is None:
        return (None,) * 6
    said = run.report
    errors = (said.tokens_error, _error(plan.steps, said.steps), said.memory_error, said.seconds_error)
    return (_error(plan.rows, said.rows), *errors, _error(plan.price.total, said.price.total))


def _error(forecast: float, used: float) -> float | None:
    return forecast / used - 1 if used else None
