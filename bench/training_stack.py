"""The training service with the embedded broker, object store and database: runs started by events and watched step by step."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from bench.training_house import BASE, House
from services.training.recipe import FOLDER, Recipe
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.events.producer import KafkaProducer
from tailor.local import processes, secrets, stack
from tailor.local.environment import StackPlan, service_environment
from tailor.local.layout import STORES
from tailor.rpc.channel import service_channel
from tailor.settings import ServiceSettings
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.s3 import S3Store

READY_SECONDS = 180
WORKER = "services.training.worker"


class Followed:
    """A run, watched in a thread: when each step ended and each phase began, by the worker's clock, and the losses."""

    def __init__(self, training: training_pb2_grpc.TrainingServiceStub, run_id: str) -> None:
        self.clocks: dict[int, float] = {}
        self.losses: dict[int, float] = {}
        self.phases: dict[str, float] = {}
        self.run = training_pb2.Run(run_id=run_id)
        self._updates = training.WatchRun(training_pb2.WatchRunRequest(run_id=run_id))
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Block until the run has ended. Raises SystemExit if it did not succeed."""
        self._thread.join()
        if self.run.state != training_pb2.RUN_STATE_SUCCEEDED:
            raise SystemExit(f"the run ended with {self.run.reason}: {self.run.message}")

    @property
    def alive(self) -> bool:
        """True while the run continues."""
        return self._thread.is_alive()

    def _watch(self) -> None:
        for said in self._updates:
            self.run = said.run
            progress = said.run.progress
            self.phases.setdefault(progress.phase, progress.create_time.ToNanoseconds() / 1e9)
            if progress.phase == "training" and progress.step not in self.clocks:
                self.losses[progress.step] = progress.loss
                self.clocks[progress.step] = progress.create_time.ToNanoseconds() / 1e9


class Service:
    """A stack with only the training service, and a house's base and dataset in its store."""

    def __init__(self, house: House, running: stack.Stack, recipes: Path) -> None:
        self._house, self._root, self._recipes = house, running.layout.root, recipes
        self._plan = StackPlan(running.layout, running.snapshot().ports, secrets.ensure(running.layout))
        self._producer = KafkaProducer.from_settings(self._settings_of("synthetic"), "synthetic")
        self._training = training_pb2_grpc.TrainingServiceStub(self.channel("training"))

    def channel(self, service: str) -> grpc.Channel:
        """A channel to a service of the stack, as the console."""
        address = self._plan.ports.address(f"{service}-rpc")
        return service_channel(self._settings_of("console"), service, address, service="console")

    def workers(self) -> list[int]:
        """Process ids of the runs' workers."""
        return [pid for pid in self.processes() if WORKER in processes.command_of(pid)]

    def processes(self) -> list[int]:
        """All process ids: supervisor, broker, object store, database, service, and the runs' workers."""
        return processes.find_marked(self._root)

    def store(self) -> None:
        """Store the base and the dataset for the service."""
        for service, bucket in (("training", MODELS), ("synthetic", DATASETS)):
            target = S3Store.from_settings(self._settings_of(service))
            for key in self._house.store.list_keys(bucket, ""):
                if not key.startswith(("runs/", "adapters/")):
                    target.put_file(bucket, key, self._house.store.root / bucket / key)

    def begin(self, name: str, recipe: Recipe) -> Followed:
        """Start a run by a dataset.built event."""
        (self._recipes / f"{name}.toml").write_text(_to_toml(recipe), encoding="utf-8")
        dataset = self._house.dataset
        event = models_pb2.DatasetBuilt(
            digest=dataset.sha256,
            specialist="engagement-reports",
            kind=models_pb2.DATASET_KIND_SFT,
            manifest=common_pb2.ObjectRef(uri=dataset.uri, sha256=dataset.sha256, size_bytes=dataset.size_bytes),
            base=BASE,
            pipeline=[models_pb2.PipelineStage(stage="sft", recipe=name)],
        )
        self._producer.send("dataset.built.v1", event.specialist, event, f"evt_{name}")
        return Followed(self._training, self._find(name))

    def cancel(self, run_id: str) -> None:
        """Cancel a run."""
        self._training.CancelRun(training_pb2.CancelRunRequest(run_id=run_id))

    def _find(self, recipe: str) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            for run in self._training.ListRuns(training_pb2.ListRunsRequest()).runs:
                if run.recipe == recipe:
                    return str(run.run_id)
            time.sleep(0.5)
        raise SystemExit(f"the service created no run of {recipe}; see {self._root}/logs")

    def _settings_of(self, service: str) -> ServiceSettings:
        environment = service_environment(service, self._plan, os.environ)
        fields: dict[str, Any] = {
            name.removeprefix("TAILOR_").lower(): value
            for name, value in environment.items()
            if name.startswith("TAILOR_")
        }
        return ServiceSettings(**fields)


@contextmanager
def training_service(house: House, root: Path, *others: str) -> Iterator[Service]:
    """Start the stack in a directory, with other services if they are named, and stop it at the end."""
    recipes = root / "recipes"
    recipes.mkdir()
    for path in FOLDER.glob("*.toml"):
        (recipes / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    # A run without an end is forecast for days, and nobody is there to approve it.
    hours = "".join(f"approval_{device}_hours = 1e6\n" for device in ("cpu", "gpu"))
    settings = f'[training]\nrecipes_dir = "{recipes}"\ndefault_base = ""\n{hours}'
    (root / "settings.toml").write_text(settings, encoding="utf-8")
    running = stack.up(root, only=(*STORES, "training", *others))
    try:
        _wait_for_stores(running)
        service = Service(house, running, recipes)
        # Inference is ready only once it has the base.
        service.store()
        running.wait_ready(READY_SECONDS)
        yield service
    finally:
        stack.down(root)


def _wait_for_stores(running: stack.Stack) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not all(running.snapshot().components[name].state == "ready" for name in STORES):
        if time.monotonic() > deadline:
            raise SystemExit(f"the stores are not ready; see {running.layout.root}/logs")
        time.sleep(0.5)


def _to_toml(chosen: Recipe) -> str:
    """The recipe as TOML."""
    simple, tables = [], []
    for name, value in chosen.model_dump(exclude_defaults=True).items():
        if isinstance(value, dict):
            tables += [f"[{name}]", *(f"{key} = {json.dumps(entry)}" for key, entry in value.items()), ""]
        else:
            simple.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*simple, "", *tables])
