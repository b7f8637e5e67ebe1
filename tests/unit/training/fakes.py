"""In-memory fakes of training's ports."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from services.training import wire
from services.training.budget_watch import BudgetWatch
from services.training.consumers import SPECIALISTS, Consumers
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
    StartedWorker,
    TrainedAdapter,
)
from services.training.handlers import TrainingPorts
from services.training.new_run import RunRequest
from services.training.pipeline import BuiltDataset
from services.training.plans import Plan, Rates
from services.training.ports import (
    AdapterStore,
    BaseStore,
    DatasetStore,
    Launcher,
    OtherCosts,
    Planner,
    PlanRequest,
    Runs,
    RunUnit,
    RunUpdate,
    WatchCursor,
)
from services.training.queue import Limits
from services.training.recipe import FOLDER, AdapterRecipe
from services.training.supervisor import Preparer, Supervisor
from tailor.api.events.v1 import models_pb2
from tailor.errors import NotFound, Reason, TailorError, Unavailable
from tailor.events.envelope import Event
from tailor.pipelines import PipelineStage
from tailor.storage.ref import Ref

START = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MANIFEST = Ref("s3://datasets/d1/manifest.json", "d1", 10)
PLAN = Plan(
    rows=6,
    tokens=400,
    steps=8,
    memory_bytes=1000,
    device_memory_bytes=4000,
    device="2 CPU cores",
    devices=2,
    seconds=20.0,
    seconds_from="estimated",
    fits=True,
    create_time=START,
)
ONE = Limits()
RATES = Rates("EUR", device_hour=3.6, million_teacher_tokens=5.0, judgement=2.0)
BASE = Base("tiny", "b1", "apache-2.0", 1000, 2000, Ref("s3://models/bases/tiny/manifest.json", "b1", 10))


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.moment = START

    def __call__(self) -> datetime:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class MemoryRuns(Runs, RunUnit):
    """Runs, reports and published events in lists. It is its own transaction."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.stored_reports: list[tuple[str, Progress]] = []
        self.published: list[tuple[str, object]] = []
        self.lines: list[tuple[str, LogLine]] = []
        self.plans: dict[str, Plan] = {}
        self.started_workers: dict[tuple[str, int], StartedWorker] = {}
        self.adapters: dict[str, tuple[str, str, str]] = {}
        self.newest: dict[tuple[str, str], NewestDataset] = {}
        self.dropped: set[str] = set()

    @contextmanager
    def unit(self) -> Iterator["MemoryRuns"]:
        yield self

    def get(self, run_id: str) -> Run | None:
        return self.runs.get(run_id)

    def find(self, run_id: str) -> Run | None:
        return self.runs.get(run_id)

    def add(self, run: Run) -> bool:
        if any(known.key == run.key for known in self.runs.values()):
            return False
        self.runs[run.run_id] = run
        return True

    def save(self, run: Run) -> None:
        self.runs[run.run_id] = run

    def active(self) -> list[Run]:
        return [run for run in self.runs.values() if not run.state.ended]

    def page(self, specialist: str, size: int, before: tuple[datetime, str] | None) -> list[Run]:
        runs = [run for run in self.runs.values() if specialist in ("", run.key.specialist)]
        if before is not None:
            runs = [run for run in runs if (run.create_time, run.run_id) < before]
        return sorted(runs, key=lambda run: (run.create_time, run.run_id), reverse=True)[:size]

    def reports(self, run_id: str, after: int) -> list[tuple[int, Progress]]:
        numbered = [
            (number, progress) for number, (owner, progress) in enumerate(self.stored_reports, 1) if owner == run_id
        ]
        return [(number, progress) for number, progress in numbered if number > after]

    def add_report(self, run: Run, progress: Progress) -> None:
        self.stored_reports.append((run.run_id, progress))

    def publish_progress(self, run: Run, progress: Progress) -> None:
        self.published.append(("run.progressed.v1", progress))

    def publish_failure(self, run: Run) -> None:
        self.published.append(("run.failed.v1", run.reason))

    def publish_adapter(self, run: Run, trained: TrainedAdapter, now: datetime) -> None:
        del now
        self.published.append(("adapter.trained.v1", trained.digest))
        if not run.current.all_weights:
            self.adapters[trained.digest] = (run.key.specialist, run.key.base, run.current.kind)

    def drop_adapters(self, digests: Iterable[str]) -> None:
        for digest in digests:
            self.adapters.pop(digest, None)

    def newest_adapter(self, specialist: str, base: str, kind: str) -> str:
        digests = [digest for digest, key in self.adapters.items() if key == (specialist, base, kind)]
        return digests[-1] if digests else ""

    def has_adapter(self, digest: str) -> bool:
        return digest in self.adapters

    def save_newest(self, dataset: NewestDataset) -> None:
        key = (dataset.specialist, dataset.kind)
        known = self.newest.get(key)
        if known is None:
            self.newest[key] = dataset
        elif known.digest != dataset.digest and known.create_time <= dataset.create_time:
            self.newest[key] = replace(dataset, number=known.number + 1)

    def newest_datasets(self, specialist: str) -> list[NewestDataset]:
        newest = [dataset for (name, _), dataset in self.newest.items() if name == specialist]
        return [dataset for dataset in newest if dataset.digest not in self.dropped]

    def drop_datasets(self, digests: Iterable[str]) -> None:
        self.dropped.update(digests)

    def learning_from(self, specialist: str, dataset_digest: str) -> list[Run]:
        runs = [run for run in self.runs.values() if run.key.specialist == specialist]
        return [run for run in runs if dataset_digest in (run.key.dataset_digest, run.preferences)]

    def add_log(self, run: Run, lines: Sequence[LogLine]) -> None:
        self.lines += [(run.run_id, line) for line in lines]

    def news(self, run_id: str, cursor: WatchCursor) -> RunUpdate | None:
        run = self.runs.get(run_id)
        if run is None:
            return None
        lines = [line for owner, line in self.lines[cursor.line :] if owner == run_id]
        reports = [progress for _, progress in self.reports(run_id, cursor.report)]
        return RunUpdate(run, reports, lines, WatchCursor(len(self.stored_reports), len(self.lines)))

    def keep_plan(self, run_id: str, plan: Plan) -> None:
        self.plans[run_id] = plan

    def plan(self, run_id: str) -> Plan | None:
        return self.plans.get(run_id)

    def save_worker(self, worker: StartedWorker) -> None:
        self.started_workers[worker.run_id, worker.epoch] = worker

    def drop_worker(self, worker: StartedWorker) -> None:
        self.started_workers.pop((worker.run_id, worker.epoch), None)

    def workers(self) -> list[StartedWorker]:
        return list(self.started_workers.values())

    def topics(self) -> list[str]:
        return [topic for topic, _ in self.published]


class FakeBases(BaseStore):
    """Bases by name."""

    def __init__(self, *bases: Base) -> None:
        self.bases = {base.name: base for base in bases}

    def find(self, name: str) -> Base | None:
        return self.bases.get(name)

    def list(self) -> list[Base]:
        return sorted(self.bases.values(), key=lambda base: base.name)

    def add(self, name: str, source: str) -> Iterator[str | Base]:
        yield f"fetching {source}"
        self.bases[name] = replace(BASE, name=name)
        yield self.bases[name]


class FakeDatasets(DatasetStore):
    """Two datasets of each kind: `d1` and `d2` for SFT, `p1` and `p2` for preferences. `d1@a` belongs to the specialist `a`.

    All of them have rows of the documents `doc_0` and `doc_1`; those whose manifests are in `deleted` are gone.
    """

    def __init__(self) -> None:
        self.deleted: set[Ref] = set()

    def find(self, digest: str) -> Dataset:
        datasets = {
            "d1": Dataset(MANIFEST, "sft", "reports", teacher_tokens=2_000_000),
            "d2": Dataset(dataset_ref("d2"), "sft", "reports"),
            "p1": Dataset(dataset_ref("p1"), "preference", "reports", judgements=30),
            "p2": Dataset(dataset_ref("p2"), "preference", "reports", judgements=40),
        }
        name, _, specialist = digest.partition("@")
        if name not in datasets:
            raise NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.")
        return replace(datasets[name], specialist=specialist or "reports")

    def document_ids(self, manifest: Ref) -> Iterator[Sequence[str]]:
        if manifest in self.deleted:
            raise NotFound(Reason.UNKNOWN_OBJECT, "There is no such object.")
        yield ["doc_0"]
        yield ["doc_1"]


class FakeAdapters(AdapterStore):
    """Adapters by digest."""

    def __init__(self, *adapters: Adapter) -> None:
        self.adapters = {adapter.manifest.sha256: adapter for adapter in adapters}

    def find(self, digest: str) -> Adapter:
        if digest not in self.adapters:
            raise NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.")
        return self.adapters[digest]


class FakePlanner(Planner):
    """Returns `answer`, or raises `error`, and records its requests."""

    def __init__(self) -> None:
        self.answer = PLAN
        self.error: TailorError | None = None
        self.asked: list[PlanRequest] = []

    def plan(self, request: PlanRequest) -> Plan:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return self.answer


class FakeLauncher(Launcher):
    """Workers whose end the test decides. `broken` makes every start fail."""

    def __init__(self) -> None:
        self.started: list[Job] = []
        self.stopped: list[tuple[str, int]] = []
        self.exits: dict[tuple[str, int], int] = {}
        self.waiting: Failure | None = None
        self.refused: Failure | None = None
        self.broken = False
        self.grace = timedelta(seconds=40)

    @property
    def ends_within(self) -> timedelta:
        return self.grace

    def start(self, job: Job) -> None:
        if self.broken:
            raise Unavailable(Reason.KUBERNETES_UNAVAILABLE, "The Kubernetes API is down.")
        self.started.append(job)

    def exit_code(self, run_id: str, epoch: int) -> int | None:
        return self.exits.get((run_id, epoch))

    def waits(self, run_id: str, epoch: int) -> Failure | None:
        return self.waiting

    def refusal(self, run_id: str, epoch: int) -> Failure | None:
        return self.refused

    def stop(self, run_id: str, epoch: int) -> None:
        self.stopped.append((run_id, epoch))

    def stop_all(self) -> None:
        self.stopped.append(("all", 0))


class PreparingSupervisor(Supervisor):
    """A supervisor that also prepares queued runs in each tick; the service does that in another thread."""

    def __init__(self, ports: TrainingPorts, launcher: Launcher, limits: Limits) -> None:
        super().__init__(ports.runs, launcher, limits, ports.now)
        self.preparer = Preparer(ports)

    def tick(self) -> None:
        self.preparer.tick()
        super().tick()


class FakeOtherCosts(OtherCosts):
    """Prices by specialist."""

    def __init__(self) -> None:
        self.amounts: dict[str, float] = {}
        self.fails: TailorError | None = None

    def this_month(self, specialist: str) -> float:
        if self.fails:
            raise self.fails
        return self.amounts.get(specialist, 0.0)


class House:
    """A training service in memory."""

    def __init__(self, recipes: Path = FOLDER, limits: Limits = ONE) -> None:
        self.now = Clock()
        self.runs = MemoryRuns()
        self.bases = FakeBases(BASE)
        self.launcher = FakeLauncher()
        self.datasets = FakeDatasets()
        self.adapters = FakeAdapters()
        self.planner = FakePlanner()
        self.other_costs = FakeOtherCosts()
        self.ports = TrainingPorts(
            self.runs,
            self.bases,
            self.datasets,
            self.adapters,
            self.planner,
            recipes,
            RATES,
            self.now,
            self.other_costs,
        )
        self.supervisor = PreparingSupervisor(self.ports, self.launcher, limits)
        self.budget_watch = BudgetWatch(self.ports, self.launcher.ends_within)

    def only_run(self) -> Run:
        (run,) = self.runs.runs.values()
        return run


def priced(house: House, compute: float) -> None:
    """Let every run be forecast at a price, which its devices and seconds give at 3.60 EUR per hour."""
    house.planner.answer = replace(PLAN, seconds=compute / RATES.device_hour / PLAN.devices * 3600)


def set_budget(house: House, amount: float) -> None:
    """Set the monthly budget of the specialist `reports`; 0 removes it."""
    message = models_pb2.SpecialistChanged(name="reports", monthly_budget=amount)
    Consumers(house.ports).on_specialist(Event(SPECIALISTS, "reports", message.SerializeToString()))


def dataset_ref(digest: str) -> Ref:
    return Ref(f"s3://datasets/{digest}/manifest.json", digest, 10)


def adapter(digest: str, **changes: Any) -> Adapter:
    manifest = Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 5)
    shape = AdapterRecipe(kind="lora").model_dump(mode="json")
    return replace(Adapter(manifest, "policy", "adapter", "reports", "tiny", shape), **changes)


def wanted(**changes: Any) -> RunRequest:
    return replace(RunRequest("reports", "d1", "tiny", "tiny"), **changes)


def built(recipe: str = "tiny", **changes: Any) -> BuiltDataset:
    """A dataset of documents; `recipe` is that of the only stage of the pipeline."""
    pipeline = (PipelineStage("sft", recipe),)
    return replace(BuiltDataset("d1", "reports", "sft", MANIFEST, "tiny", pipeline, START), **changes)


def built_as(digest: str, *stages: str, minutes: int = 0) -> BuiltDataset:
    """A dataset, of preferences if its digest begins with `p`, with a pipeline of stages whose recipes have their names; sft has `tiny`."""
    pipeline = tuple(PipelineStage(stage, "tiny" if stage == "sft" else stage) for stage in stages)
    kind = "preference" if digest.startswith("p") else "sft"
    moment = START + timedelta(minutes=minutes)
    return built(digest=digest, kind=kind, manifest=dataset_ref(digest), pipeline=pipeline, create_time=moment)


def progress(step: int = 1, **changes: Any) -> Progress:
    """A worker's report; `changes` are fields of its message."""
    figures: dict[str, Any] = {
        "phase": "training",
        "step": step,
        "total_steps": 8,
        "loss": 3.0 - step / 10,
        "learning_rate": 1e-3,
        "gradient_norm": 0.5,
        "tokens_per_second": 200.0,
        "remaining_seconds": 10.0,
    }
    return wire.to_progress(models_pb2.RunProgressed(**figures | changes), epoch=1, now=START)


def trained(digest: str = "a1") -> TrainedAdapter:
    return TrainedAdapter(digest, Ref(f"s3://models/adapters/{digest}/manifest.json", digest, 5), steps=8)
