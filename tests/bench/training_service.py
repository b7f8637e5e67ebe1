"""What the service adds to the bare trainer: events, reports, checkpoints and their uploads.

The bare side is the same method's trainer in a process of its own, without checkpoints, reports or turns. The other side is a run of the training
service over the embedded broker, object store and database. Both train the same steps of the recipe on the same rows; the loop alone is timed,
from the end of the first step to the end of the last, in turns. A shared machine has slow minutes: each step counts as in its quickest round.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from services.training.recipe import FOLDER, Recipe
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.events.producer import KafkaProducer
from tailor.local import secrets, stack
from tailor.local.environment import Plan, service_environment
from tailor.local.layout import STORES
from tailor.rpc.channel import service_channel
from tailor.settings import ServiceSettings
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.s3 import S3Store
from tests.bench.training_house import BASE, ROOT, House, recipe

STEPS = 60
ROUNDS = 5
READY_SECONDS = 180


def measure(house: House) -> dict[str, Any]:
    """Seconds of each side's steps, each in its quickest round, CPU seconds of its best round, and their ratios less 1."""
    with (
        tempfile.TemporaryDirectory(prefix="tailor-bench-", ignore_cleanup_errors=True) as folder,
        _service(house, Path(folder).resolve()) as service,
    ):
        bare, served = [], []
        for number in range(ROUNDS):
            bare.append(_bare(house, _recipe(number)))
            served.append(service.run(number))
    alone, through = _best(bare), _best(served)
    return {
        "bare_seconds": round(alone.seconds, 2),
        "service_seconds": round(through.seconds, 2),
        "service_overhead": round(through.seconds / alone.seconds - 1, 4),
        "service_cpu_overhead": round(through.cpu_seconds / alone.cpu_seconds - 1, 4),
        "steps": STEPS,
        "checkpoints": (STEPS - 1) // _recipe(0).checkpoint_every_steps,
        "service_rounds": ROUNDS,
    }


@dataclass(frozen=True)
class Round:
    """When each step ended, and the CPU seconds from the end of the first to the end of the last."""

    ends: Sequence[float]
    cpu_seconds: float


@dataclass(frozen=True)
class Taken:
    """What the steps after the first took."""

    seconds: float
    cpu_seconds: float


def _best(rounds: Sequence[Round]) -> Taken:
    steps = np.min([np.diff(one.ends) for one in rounds], axis=0)
    return Taken(float(steps.sum()), min(one.cpu_seconds for one in rounds))


def _recipe(number: int) -> Recipe:
    """The demo's recipe, for so many steps; a limit that is never reached makes each round a run of its own."""
    return recipe("lora", limit={"epochs": 10.0 + number, "max_steps": STEPS, "max_tokens": 0})


def _bare(house: House, chosen: Recipe) -> Round:
    body = json.dumps({"base": str(house.base_folder), "train": str(house.train), "recipe": chosen.to_json()})
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.bench.training_bare"]
    done = subprocess.run(command, input=body, capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    return Round(**json.loads(done.stdout.strip().splitlines()[-1]))


class _Service:
    """The training service, with the base and the dataset in its store."""

    def __init__(self, house: House, plan: Plan, root: Path, recipes: Path) -> None:
        self._house, self._plan, self._root, self._recipes = house, plan, root, recipes
        self._settings = self._settings_of("synthetic")
        self._producer = KafkaProducer.from_settings(self._settings, "synthetic")
        channel = service_channel(
            self._settings_of("console"), "training", plan.ports.address("training-rpc"), service="console"
        )
        self._training = training_pb2_grpc.TrainingServiceStub(channel)

    def _settings_of(self, service: str) -> ServiceSettings:
        environment = service_environment(service, self._plan, os.environ)
        fields: dict[str, Any] = {
            name.removeprefix("TAILOR_").lower(): value
            for name, value in environment.items()
            if name.startswith("TAILOR_")
        }
        return ServiceSettings(**fields)

    def store(self) -> None:
        """Put base and dataset where the service looks for them."""
        for service, bucket in (("training", MODELS), ("synthetic", DATASETS)):
            target = S3Store.from_settings(self._settings_of(service))
            for key in self._house.store.list_keys(bucket, ""):
                if not key.startswith(("runs/", "adapters/")):
                    target.put_file(bucket, key, self._house.store.root / bucket / key)

    def run(self, number: int) -> Round:
        """One run, made by its event."""
        name = f"bench-{number}"
        (self._recipes / f"{name}.toml").write_text(_to_toml(_recipe(number)), encoding="utf-8")
        dataset = self._house.dataset
        event = models_pb2.DatasetBuilt(
            digest=dataset.sha256,
            specialist="engagement-reports",
            kind=models_pb2.DATASET_KIND_SFT,
            manifest=common_pb2.ObjectRef(uri=dataset.uri, sha256=dataset.sha256, size_bytes=dataset.size_bytes),
            base=BASE,
            recipe=name,
        )
        self._producer.send("dataset.built.v1", event.specialist, event, f"evt_bench_{number}")
        return self._follow(self._find(name))

    def _find(self, name: str) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            runs = self._training.ListRuns(training_pb2.ListRunsRequest()).runs
            for run in runs:
                if run.recipe == name:
                    return str(run.run_id)
            time.sleep(0.5)
        raise SystemExit(f"the service made no run of {name}; see {self._root}/logs")

    def _follow(self, run_id: str) -> Round:
        moments: dict[int, float] = {}
        looks: list[tuple[float, float]] = []
        run = training_pb2.Run()
        for said in self._training.WatchRun(training_pb2.WatchRunRequest(run_id=run_id)):
            run = said.run
            if run.progress.phase in ("loading", "training"):
                looks.append((time.time(), self._cpu(run_id, run.epoch)))
                moments[run.progress.step] = run.progress.create_time.ToNanoseconds() / 1e9
        if run.state != training_pb2.RUN_STATE_SUCCEEDED:
            raise SystemExit(f"the run ended with {run.reason}: {run.message}")
        # A step is heard of a moment after its end: between two looks the worker is taken to be equally busy.
        times, busy = np.array(looks).T
        first, last = np.interp([moments[1], moments[STEPS]], times, busy)
        return Round([moments[step] for step in range(1, STEPS + 1)], float(last - first))

    def _cpu(self, run_id: str, epoch: int) -> float:
        """CPU seconds of the worker so far."""
        (file,) = self._root.glob(f"scratch/training/workers/{run_id}-{epoch}.pid")
        pid = file.read_text(encoding="utf-8").split()[0]
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _service(house: House, root: Path) -> Iterator[_Service]:
    recipes = root / "recipes"
    recipes.mkdir()
    for path in FOLDER.glob("*.toml"):
        (recipes / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    settings = f'[training]\nrecipes_dir = "{recipes}"\ndefault_base = ""\n'
    (root / "settings.toml").write_text(settings, encoding="utf-8")
    running = stack.up(root, only=(*STORES, "training"))
    try:
        running.wait_ready(READY_SECONDS)
        service = _Service(
            house, Plan(running.layout, running.snapshot().ports, secrets.ensure(running.layout)), root, recipes
        )
        service.store()
        yield service
    finally:
        stack.down(root)


def _to_toml(chosen: Recipe) -> str:
    """The settings as a recipe file."""
    simple, tables = [], []
    for name, value in chosen.model_dump(exclude_defaults=True).items():
        if isinstance(value, dict):
            tables += [f"[{name}]", *(f"{key} = {json.dumps(entry)}" for key, entry in value.items()), ""]
        else:
            simple.append(f"{name} = {json.dumps(value)}")
    return "\n".join([*simple, "", *tables])
