"""Runs the real training worker in this process, over a store in a folder, for tests and benches."""

import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.training.bases.store import Fetch, StoredBases, fetch_in_child
from services.training.domain import Base
from services.training.methods.base import SINGLE
from services.training.methods.engine import StartEngine, without_engine
from services.training.recipe import Recipe
from services.training.spec import WorkerSpec
from services.training.worker.reload_check import Reload, reload_in_fresh_process
from services.training.worker.reporter import Reporter
from services.training.worker.worker import Worker
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2 as pb
from tailor.storage.ref import Ref
from tailor.values import DatasetKind
from tailor.wire import to_ref
from tests import datasets
from tests.unit.training.stores import FileStore, make_signer

BASE = "base"
Rows = list[dict[str, Any]]


class KilledError(Exception):
    """The worker's process ends here."""


class DyingStore(FileStore):
    """A store whose worker is killed when it writes a key with this ending."""

    def __init__(self, root: Path, ending: str) -> None:
        super().__init__(root)
        self._ending = ending

    def put(self, bucket: str, key: str, data: bytes, content_type: str = "application/octet-stream") -> Ref:
        """Write, or kill the worker."""
        if key.endswith(self._ending):
            raise KilledError
        return super().put(bucket, key, data, content_type)


class Service:
    """A training service that records a worker's reports, and passes every progress report to `watch`."""

    def __init__(self, watch: Callable[[models_pb2.RunProgressed], None]) -> None:
        self._watch = watch
        self.trained: models_pb2.AdapterTrained | None = None
        self.failed: models_pb2.RunFailed | None = None
        self.progress: list[models_pb2.RunProgressed] = []

    def report(self, request: pb.ReportProgressRequest) -> bool:
        """Record a report. Never asks the worker to stop."""
        if request.HasField("trained"):
            self.trained = request.trained
        elif request.HasField("failed"):
            self.failed = request.failed
        elif request.HasField("progress"):
            self.progress.append(request.progress)
            self._watch(request.progress)
        return False


@dataclass(frozen=True)
class House:
    """A store with one base, in a folder."""

    store: FileStore
    base: Base
    folder: Path


def furnish(folder: Path, source: str, fetch: Fetch = fetch_in_child) -> House:
    """Build a store with the base of this source."""
    store = FileStore(folder / "store")
    *_, base = StoredBases(store, folder / "scratch", fetch=fetch).add(BASE, source)
    if not isinstance(base, Base):
        raise TypeError("the base was not added")
    return House(store, base, folder)


def store_dataset(house: House, kind: str, splits: Mapping[str, Rows]) -> Ref:
    """Store a dataset with these splits. Returns its manifest's reference."""
    manifest, _ = datasets.store_dataset(house.store, splits, kind=DatasetKind(kind))
    return manifest


def spec_of(
    house: House,
    run_id: str,
    recipe: Recipe,
    dataset: Ref,
    *,
    parent: Ref | None = None,
    reward: Ref | None = None,
    held_out_reward: Ref | None = None,
    epoch: int = 1,
) -> WorkerSpec:
    """The input of a worker."""
    return WorkerSpec(
        run_id=run_id,
        epoch=epoch,
        specialist="reports",
        dataset_digest=dataset.sha256,
        dataset_manifest=dataset,
        base=BASE,
        base_digest=house.base.digest,
        recipe=recipe.method,
        recipe_json=recipe.to_json(),
        first_loss=0.0,
        start_time=datetime.now(UTC).isoformat(),
        parent=parent,
        reward=reward,
        held_out_reward=held_out_reward,
    )


def train(
    house: House,
    run_id: str,
    recipe: Recipe,
    dataset: Ref,
    *,
    parent: Ref | None = None,
    reward: Ref | None = None,
    held_out_reward: Ref | None = None,
    epoch: int = 1,
    dies_at: str = "",
    watch: Callable[[models_pb2.RunProgressed], None] = lambda _: None,
    reload: Reload = reload_in_fresh_process,
    start_engine: StartEngine = without_engine,
) -> Service:
    """Run one worker to its end, by default without an engine for rollouts. Raises KilledError when it writes a key that ends with `dies_at`."""
    spec = spec_of(
        house, run_id, recipe, dataset, parent=parent, reward=reward, held_out_reward=held_out_reward, epoch=epoch
    )
    store = DyingStore(house.store.root, dies_at) if dies_at else house.store
    service = Service(watch)
    run_worker(spec, recipe, store, service, house.folder, reload=reload, start_engine=start_engine)
    return service


def run_worker(
    spec: WorkerSpec,
    recipe: Recipe,
    store: FileStore,
    service: Service,
    folder: Path,
    *,
    reload: Reload = reload_in_fresh_process,
    start_engine: StartEngine = without_engine,
) -> int:
    """Run one worker, which works in a new folder within `folder`. Returns its exit code."""
    with tempfile.TemporaryDirectory(dir=folder) as work:
        worker = Worker(
            spec,
            recipe,
            store,
            Reporter(service.report, spec.run_id, spec.epoch),
            Path(work),
            signer=make_signer(),
            processes=SINGLE,
            reload=reload,
            start_engine=start_engine,
        )
        return worker.run(threading.Event(), threading.Event())


def adapter(service: Service) -> Ref:
    """The manifest of a worker's adapter."""
    if service.trained is None:
        raise AssertionError(service.failed)
    return to_ref(service.trained.manifest)
