"""Datasets, runs, workers and checkpoints of an installation, to look at and to break."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from services.synthetic.adapters.parquet import ParquetWriter
from services.synthetic.datasets import manifest_entry, write_manifest
from services.synthetic.domain import Split
from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.compute_lock import ComputeLock
from tailor.events.envelope import derive_id
from tailor.events.producer import KafkaProducer
from tailor.local.processes import ProcessRef
from tailor.settings import ServiceSettings
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tailor.storage.s3 import S3Store
from tests.conftest import Stores, plan_of
from tests.e2e.conftest import Installation, wait_until

SFT, PREFERENCE = models_pb2.DATASET_KIND_SFT, models_pb2.DATASET_KIND_PREFERENCE


class Datasets:
    """What synthetic does, with its credentials and in its words."""

    def __init__(self, installation: Installation) -> None:
        self._settings = Stores(plan_of(installation.stack)).settings("synthetic", ServiceSettings)
        self.store = S3Store.from_settings(self._settings)
        self.writer = ParquetWriter(self.store)

    def write(self, kind: str, specialist: str, train: Split, held_out: Split) -> Ref:
        """Store a dataset's manifest."""
        splits = {"train": manifest_entry(train), "held_out": manifest_entry(held_out)}
        return write_manifest(self.store, None, {"kind": kind, "specialist": specialist, "splits": splits}, {})[1]

    def state(self, specialist: str, manifest: Ref, kind: models_pb2.DatasetKind, recipe: str = "") -> None:
        """State that it was built."""
        message = models_pb2.DatasetBuilt(
            digest=manifest.sha256,
            specialist=specialist,
            kind=kind,
            manifest=common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes),
            base="tiny",
            recipe=recipe,
        )
        producer = KafkaProducer.from_settings(self._settings, "synthetic")
        producer.send("dataset.built.v1", specialist, message, derive_id("evt", "dataset.built.v1", manifest.sha256))
        producer.close()


@dataclass(frozen=True)
class Checkpoint:
    """What stands in the models bucket of one step."""

    prefix: str
    step: int
    whole: bool


class Training:
    """The training service as an operator sees it, and its workers as the machine does."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._workers = installation.stack.layout.scratch("training") / "workers"
        self.stub = training_pb2_grpc.TrainingServiceStub(installation.channel("training"))
        worker = Stores(plan_of(installation.stack)).environment("training")
        self.store = S3Store.from_settings(
            ServiceSettings(
                s3_endpoint=worker["TAILOR_S3_ENDPOINT"],
                s3_access_key=worker["TAILOR_WORKER_S3_ACCESS_KEY"],
                s3_secret_key=worker["TAILOR_WORKER_S3_SECRET_KEY"],
            )
        )

    def create(self, **wanted: object) -> str:
        """Ask for a run; its id."""
        request = training_pb2.CreateRunRequest(base="tiny", **wanted)  # type: ignore[arg-type]
        return self.stub.CreateRun(request, timeout=120).run.run_id

    def run(self, run_id: str) -> training_pb2.Run:
        """The run as it stands."""
        return self.stub.GetRun(training_pb2.GetRunRequest(run_id=run_id), timeout=10).run

    def runs(self, specialist: str) -> list[training_pb2.Run]:
        """The newest runs of a specialist."""
        return list(self.stub.ListRuns(training_pb2.ListRunsRequest(specialist=specialist), timeout=10).runs)

    def cancel(self, run_id: str) -> training_pb2.Run:
        """End a run."""
        return self.stub.CancelRun(training_pb2.CancelRunRequest(run_id=run_id), timeout=10).run

    def waits(self, run_id: str, reason: str) -> training_pb2.Run:
        """The run, once it says that this is what it waits for."""
        return self._reach(run_id, reason, lambda run: run.reason == reason)

    def ended(self, run_id: str) -> training_pb2.Run:
        """The run, once it has ended."""
        return self._reach(run_id, "the end", lambda run: run.state > training_pb2.RUN_STATE_RUNNING)

    def started(self, run_id: str, epoch: int = 1) -> ProcessRef:
        """The worker of an epoch, once it lives."""
        return wait_until(lambda: self.worker(run_id, epoch), f"worker {epoch} of the run", 120)

    def worker(self, run_id: str, epoch: int) -> ProcessRef | None:
        """The worker of an epoch, while it lives."""
        file = self._workers / f"{run_id}-{epoch}.pid"
        pid, _, started = file.read_text(encoding="utf-8").partition(" ") if file.exists() else ("", "", "")
        process = ProcessRef(int(pid), int(started)) if started else None
        return process if process and process.is_alive() else None

    def steps(self, run_id: str, stage: int = 0) -> list[tuple[int, int]]:
        """Epoch and step of every report of a stage's training, in order; of a run that has ended."""
        request = training_pb2.WatchRunRequest(run_id=run_id)
        seen = [answer.run.progress for answer in self.stub.WatchRun(request, timeout=60)][1:]
        said = [(one.epoch, one.step) for one in seen if one.stage == stage and one.phase == "training"]
        return list(dict.fromkeys(said))

    def manifest(self, adapter: str) -> dict[str, Any]:
        """An adapter's manifest."""
        return dict(json.loads(self.store.read(MODELS, f"adapters/{adapter}/manifest.json")))

    def weights(self, adapter: str) -> str:
        """The SHA-256 of an adapter's weights."""
        files = self.manifest(adapter)["files"]
        (digest,) = (file["sha256"] for file in files if file["path"] == "adapter_model.safetensors")
        return str(digest)

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        """What stands of the run's checkpoints, by step."""
        keys = self.store.list_keys(MODELS, f"runs/{run_id}/")
        prefixes = {key.rpartition("/")[0] for key in keys}
        found = [
            Checkpoint(prefix, int(prefix.rpartition("-")[2]), f"{prefix}/manifest.json" in keys) for prefix in prefixes
        ]
        return sorted(found, key=lambda one: one.step)

    def _reach(self, run_id: str, what: str, there: Callable[[training_pb2.Run], bool]) -> training_pb2.Run:
        def check() -> training_pb2.Run | None:
            run = self.run(run_id)
            if there(run):
                return run
            assert run.state <= training_pb2.RUN_STATE_RUNNING, f"{what}: {run.reason} {run.message}"
            return None

        return wait_until(check, what, 300)


class Turn:
    """Holds the turn that every step of training takes: a worker stands before its next step."""

    def __init__(self, installation: Installation, training: Training) -> None:
        self._training = training
        self._lock = ComputeLock(installation.stack.layout.compute_lock_file)
        self._lock.acquire()

    def give(self) -> None:
        """Let a step pass."""
        self._lock.release()
        self._lock.acquire()

    def reach(self, run_id: str, step: int, *, stage: int = 0, epoch: int = 0) -> training_pb2.Run:
        """Let steps pass until the run has reported this one, or a later one, in this stage, under this epoch or a later one."""

        def there() -> training_pb2.Run | None:
            run = self._training.run(run_id)
            said = run.progress
            assert run.state <= training_pb2.RUN_STATE_RUNNING, f"step {step}: {run.reason} {run.message}"
            if said.phase == "training" and said.stage == stage and said.step >= step and said.epoch >= epoch:
                return run
            self.give()
            return None

        return wait_until(there, f"step {step}", 240)

    def tear(self, run_id: str, worker: ProcessRef) -> Checkpoint:
        """Let steps pass, and kill the worker while objects of a checkpoint stand without their manifest; that checkpoint."""
        while worker.is_alive():
            self.give()
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                if not all(one.whole for one in self._training.checkpoints(run_id)):
                    os.kill(worker.pid, signal.SIGSTOP)
                    time.sleep(0.05)  # what it had sent by then arrives
                    if (last := self._training.checkpoints(run_id)[-1]).whole:
                        os.kill(worker.pid, signal.SIGCONT)
                    else:
                        os.kill(worker.pid, signal.SIGKILL)
                        return last
        raise AssertionError("the run ended before its worker was killed within an upload")

    def end(self) -> None:
        """Give the turn for good."""
        self._lock.release()


@contextmanager
def standing(installation: Installation, training: Training) -> Iterator[Turn]:
    """Nothing is trained but what the turn lets pass."""
    turn = Turn(installation, training)
    try:
        yield turn
    finally:
        turn.end()
