"""The Protocols of what training's handlers, loops and workers need from outside: adapters implement them, tests fake them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from services.training.domain import (
    Adapter,
    Base,
    Dataset,
    Failure,
    Job,
    LogLine,
    NewestDataset,
    Progress,
    Run,
    Stage,
    StartedWorker,
    TrainedAdapter,
)
from services.training.plans import Plan
from tailor.storage.ref import Ref


class OtherCosts(Protocol):
    """The costs of a specialist besides its runs."""

    def this_month(self, specialist: str) -> float:
        """The price in this calendar month (UTC) so far. Blocks. Raises Unavailable while the registry does not answer."""
        ...


@dataclass(frozen=True)
class WatchCursor:
    """The last report and the last log line that a watcher has seen, by number."""

    report: int = 0
    line: int = 0


@dataclass(frozen=True)
class RunUpdate:
    """A run with the reports and log lines that are new to a watcher.

    The run was read before them, so nothing follows if it has ended.
    """

    run: Run
    reports: Sequence[Progress]
    lines: Sequence[LogLine]
    cursor: WatchCursor


class RunEvents(Protocol):
    """Publishes events of runs when the surrounding transaction commits."""

    def publish_progress(self, run: Run, progress: Progress) -> None:
        """Publish `run.progressed.v1`."""
        ...

    def publish_failure(self, run: Run) -> None:
        """Publish `run.failed.v1` with the run's reason."""
        ...

    def publish_adapter(self, run: Run, trained: TrainedAdapter, now: datetime) -> None:
        """Publish `adapter.trained.v1` for the run's current stage, and record the adapter as one to build on."""
        ...


class RunRecords(Protocol):
    """The runs, within a transaction. Every method may raise Unavailable."""

    def get(self, run_id: str) -> Run | None:
        """The run, locked until the transaction ends."""
        ...

    def add(self, run: Run) -> bool:
        """Insert a new run; False if one with the same key exists."""
        ...

    def save(self, run: Run) -> None:
        """Replace the run."""
        ...

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, locked."""
        ...

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        """The specialist's runs with a stage that learns from the dataset, oldest first."""
        ...


class RunInputs(Protocol):
    """The datasets and adapters that runs learn from, within a transaction. Every method may raise Unavailable."""

    def save_newest(self, dataset: NewestDataset) -> None:
        """Record a dataset as the newest of its kind, and count it, unless a newer one is recorded. Idempotent."""
        ...

    def newest_datasets(self, specialist: str) -> list[NewestDataset]:
        """The specialist's newest dataset of each kind, without those that were dropped."""
        ...

    def drop_datasets(self, digests: Iterable[str]) -> None:
        """These datasets are no longer the newest of their kind; none is until the next one. The count goes on."""
        ...

    def has_adapter(self, digest: str) -> bool:
        """True if later stages and runs may build on the adapter."""
        ...

    def drop_adapters(self, digests: Iterable[str]) -> None:
        """No longer offer these adapters to build on."""
        ...


class RunJournal(Protocol):
    """What runs report, their plans and their workers, within a transaction. Every method may raise Unavailable."""

    def add_report(self, run: Run, progress: Progress) -> None:
        """Store a report for watchers."""
        ...

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Store log lines; only the newest 2,000 of a run are kept."""
        ...

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        """Store the plan of a run that may be created later. Replaces an earlier one."""
        ...

    def save_worker(self, worker: StartedWorker) -> None:
        """Insert or update a started worker."""
        ...

    def drop_worker(self, worker: StartedWorker) -> None:
        """Forget a worker that has ended."""
        ...


class RunUnit(RunRecords, RunInputs, RunJournal, RunEvents, Protocol):
    """One transaction over the runs."""


class Runs(Protocol):
    """The runs of this installation. Every method may raise Unavailable."""

    def unit(self) -> AbstractContextManager[RunUnit]:
        """Open a transaction."""
        ...

    def find(self, run_id: str) -> Run | None:
        """The run's current state, unlocked."""
        ...

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs older than `before` (create time, run id), newest first; of all specialists if the name is empty."""
        ...

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        """Reports with a number over `after`, in order."""
        ...

    def news(self, run_id: str, cursor: WatchCursor) -> RunUpdate | None:
        """The run with everything after the cursor; None if the run does not exist."""
        ...

    def plan(self, run_id: str) -> Plan | None:
        """The stored plan of a run."""
        ...

    def active(self) -> list[Run]:
        """Runs that have not ended, oldest first, unlocked."""
        ...

    def workers(self) -> list[StartedWorker]:
        """Workers that may still be alive."""
        ...

    def newest_adapter(self, specialist: str, base: str, kind: str) -> str:
        """Digest of the specialist's newest adapter on the base to build on. Empty if there is none."""
        ...


class BaseStore(Protocol):
    """The bases in the models bucket."""

    def find(self, name: str) -> Base | None:
        """A base by name."""
        ...

    def list(self) -> list[Base]:
        """All bases, by name."""
        ...

    def add(self, name: str, source: str) -> Iterator[str | Base]:
        """Fetch a base. Yields readable progress, then the base. Idempotent.

        Raises InvalidArgument if the source is not a usable causal model, AlreadyExists if the name means other weights.
        """
        ...


class DatasetStore(Protocol):
    """The datasets bucket."""

    def find(self, digest: str) -> Dataset:
        """A dataset by digest. Raises NotFound (UNKNOWN_DATASET)."""
        ...

    def document_ids(self, manifest: Ref) -> Iterator[Sequence[str]]:
        """Stream the ids of the documents behind a dataset's rows, in batches. Raises NotFound if the dataset was deleted. Blocks."""
        ...


class AdapterStore(Protocol):
    """The adapters in the models bucket."""

    def find(self, digest: str) -> Adapter:
        """An adapter by digest. Raises NotFound (UNKNOWN_ADAPTER)."""
        ...


@dataclass(frozen=True)
class PlanRequest:
    """What to forecast. `parent` is the manifest of the adapter that the run starts from; None means the base itself.

    A stage without a dataset is left out of the forecast.
    """

    specialist: str
    base: Base
    stages: tuple[Stage, ...]
    parent: Ref | None = None


class Planner(Protocol):
    """Forecasts runs."""

    def plan(self, request: PlanRequest) -> Plan:
        """Forecast a run. If it does not fit, the plan says so and names the nearest recipe that does.

        Loads no weights. May take seconds: never call it within a transaction. Raises Unavailable, and FailedPrecondition or
        InvalidArgument if the dataset or the base is unusable.
        """
        ...


class Launcher(Protocol):
    """Starts and stops workers. A worker is named by run and epoch. Every method may raise Unavailable."""

    @property
    def ends_within(self) -> timedelta:
        """How long a worker may take to end after `stop`: time to save, then to be killed."""
        ...

    def start(self, job: Job) -> None:
        """Start a worker. Idempotent: a worker of the same name is not started twice."""
        ...

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        """The worker's exit code; None while it runs, waits to be placed, or is unknown here."""
        ...

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        """Why the worker has not been placed on a machine yet; None once it has."""
        ...

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        """Why every worker of this run would fail, such as a missing image; None if another may succeed."""
        ...

    def stop(self, run_id: str, epoch: int) -> None:
        """Ask the worker to end. Idempotent."""
        ...

    def stop_all(self) -> None:
        """Ask every worker to save and end, and block until they have. Called when the service stops."""
        ...


@dataclass(frozen=True)
class RolloutAnswer:
    """One answer, its end token included, with the log-probability that each of its tokens was drawn with."""

    tokens: Sequence[int]
    log_probabilities: Sequence[float]


class RolloutEngine(Protocol):
    """Writes the answers of a rollout step with other kernels than the training model's."""

    def write(self, prompts: Sequence[Sequence[int]], adapter: Path, seed: int) -> Sequence[RolloutAnswer]:
        """One sampled answer per prompt, by the adapter in a folder. Blocks. Depends on its arguments only.

        Raises Unavailable (ENGINE_FAILED).
        """
        ...

    @property
    def peak_bytes(self) -> int:
        """The largest memory until now, in addition to the caller's."""
        ...

    def close(self) -> None:
        """Free all memory. Idempotent."""
        ...
