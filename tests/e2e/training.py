"""Datasets, runs, workers and checkpoints of an installation, to inspect and to break."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tailor.api.common.v1 import common_pb2
from tailor.api.events.v1 import models_pb2
from tailor.api.training.v1 import training_pb2, training_pb2_grpc
from tailor.dataset_ids import read_ids
from tailor.datasets import HELD_OUT, TRAIN, DatasetManifest
from tailor.events.envelope import derive_id
from tailor.events.producer import KafkaProducer
from tailor.local.processes import ProcessRef
from tailor.settings import ServiceSettings
from tailor.storage.buckets import MODELS
from tailor.storage.ref import Ref
from tailor.storage.s3 import S3Store
from tailor.values import DatasetKind
from tests.conftest import Stores, plan_of
from tests.datasets import Rows, store_dataset
from tests.e2e.conftest import Installation, ask_until
from tests.waiting import wait_until

SFT, PREFERENCE = models_pb2.DATASET_KIND_SFT, models_pb2.DATASET_KIND_PREFERENCE
ENDED = (training_pb2.RUN_STATE_SUCCEEDED, training_pb2.RUN_STATE_FAILED, training_pb2.RUN_STATE_CANCELLED)


class Datasets:
    """Writes and publishes datasets as synthetic does, with its credentials."""

    def __init__(self, installation: Installation) -> None:
        self._settings = Stores(plan_of(installation.stack)).settings("synthetic", ServiceSettings)
        self.store = S3Store.from_settings(self._settings)

    def write(self, kind: str, specialist: str, train: Rows, held_out: Rows) -> tuple[Ref, DatasetManifest]:
        """Store a dataset, and return its manifest with its reference."""
        splits = {TRAIN: train, HELD_OUT: held_out}
        return store_dataset(self.store, splits, rows_per_file=10, kind=DatasetKind(kind), specialist=specialist)

    def judgement_ids(self, manifest: Ref) -> set[str]:
        """The judgements that a dataset's manifest lists."""
        judgements = DatasetManifest.parse(self.store.get(manifest)).judgements
        return {judgement_id for ids in read_ids(self.store, judgements, "judgement_id") for judgement_id in ids}

    def publish(self, specialist: str, manifest: Ref, kind: models_pb2.DatasetKind.ValueType, *recipes: str) -> None:
        """Publish that the dataset was built. The recipes are those of a pipeline of sft and dpo."""
        message = models_pb2.DatasetBuilt(
            digest=manifest.sha256,
            specialist=specialist,
            kind=kind,
            manifest=common_pb2.ObjectRef(uri=manifest.uri, sha256=manifest.sha256, size_bytes=manifest.size_bytes),
            base="tiny",
            pipeline=[
                models_pb2.PipelineStage(stage=stage, recipe=recipe)
                for stage, recipe in zip(("sft", "dpo"), recipes, strict=False)
            ],
        )
        message.create_time.GetCurrentTime()
        producer = KafkaProducer.from_settings(self._settings, "synthetic")
        producer.send("dataset.built.v1", specialist, message, derive_id("evt", "dataset.built.v1", manifest.sha256))
        producer.close()


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one step in the models bucket. It is whole if its manifest exists."""

    prefix: str
    step: int
    whole: bool


class Training:
    """The training service through its API, and its workers as processes of this machine."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._workers = installation.stack.layout.scratch("training") / "workers"
        self.stub = training_pb2_grpc.TrainingServiceStub(installation.channel("training"))
        worker = Stores(plan_of(installation.stack)).environment("training")
        self.store = S3Store.from_settings(
            ServiceSettings(
                s3_region=worker.get("TAILOR_S3_REGION", "us-east-1"),
                s3_endpoint=worker["TAILOR_S3_ENDPOINT"],
                s3_access_key=worker["TAILOR_WORKER_S3_ACCESS_KEY"],
                s3_secret_key=worker["TAILOR_WORKER_S3_SECRET_KEY"],
            )
        )

    def create(self, **fields: object) -> str:
        """Create a run, and return its id."""
        request = training_pb2.CreateRunRequest(base="tiny", **fields)  # type: ignore[arg-type]
        return self.stub.CreateRun(request, timeout=120).run.run_id

    def run(self, run_id: str) -> training_pb2.Run:
        """The run's current state."""
        return self.stub.GetRun(training_pb2.GetRunRequest(run_id=run_id), timeout=60).run

    def runs(self, specialist: str) -> list[training_pb2.Run]:
        """The newest runs of a specialist."""
        return list(self.stub.ListRuns(training_pb2.ListRunsRequest(specialist=specialist), timeout=60).runs)

    def cancel(self, run_id: str) -> training_pb2.Run:
        """Cancel a run."""
        return self.stub.CancelRun(training_pb2.CancelRunRequest(run_id=run_id), timeout=60).run

    def wait_for_reason(self, run_id: str, reason: str) -> training_pb2.Run:
        """Block until the run is waiting for this reason, and return it."""
        return self._wait_for(run_id, reason, lambda run: run.reason == reason)

    def wait_for_end(self, run_id: str) -> training_pb2.Run:
        """Block until the run has ended, and return it."""
        return self._wait_for(run_id, "the end", lambda run: run.state in ENDED)

    def wait_for_worker(self, run_id: str, epoch: int = 1) -> ProcessRef:
        """Block until the worker of an epoch is alive, and return it."""
        return ask_until(lambda: self.worker(run_id, epoch), f"worker {epoch} of the run", 120)

    def worker(self, run_id: str, epoch: int) -> ProcessRef | None:
        """The worker of an epoch if it is alive, else None."""
        file = self._workers / f"{run_id}-{epoch}.pid"
        pid, _, start_ticks = file.read_text(encoding="utf-8").partition(" ") if file.exists() else ("", "", "")
        process = ProcessRef(int(pid), int(start_ticks)) if start_ticks else None
        return process if process and process.is_alive() else None

    def steps(self, run_id: str, stage: int = 0) -> list[tuple[int, int]]:
        """The epoch and step of every training report of a stage, in order. The run must have ended."""
        request = training_pb2.WatchRunRequest(run_id=run_id)
        reports = [response.run.progress for response in self.stub.WatchRun(request, timeout=60)][1:]
        steps = [(item.epoch, item.step) for item in reports if item.stage == stage and item.phase == "training"]
        return list(dict.fromkeys(steps))

    def manifest(self, adapter: str) -> dict[str, Any]:
        """An adapter's manifest."""
        return dict(json.loads(self.store.read(MODELS, f"adapters/{adapter}/manifest.json")))

    def weights(self, adapter: str) -> str:
        """The SHA-256 of an adapter's weights."""
        files = self.manifest(adapter)["files"]
        (digest,) = (file["sha256"] for file in files if file["path"] == "adapter_model.safetensors")
        return str(digest)

    def checkpoints(self, run_id: str) -> list[Checkpoint]:
        """The run's stored checkpoints, by step."""
        keys = self.store.list_keys(MODELS, f"runs/{run_id}/")
        prefixes = {key.rpartition("/")[0] for key in keys}
        checkpoints = [
            Checkpoint(prefix, int(prefix.rpartition("-")[2]), f"{prefix}/manifest.json" in keys) for prefix in prefixes
        ]
        return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)

    def advance(self, run_id: str, step: int, *, stage: int = 0, epoch: int = 0) -> training_pb2.Run:
        """Block until the run has reported this step or a later one, in this stage, and in this epoch or a later one."""

        def is_reached(run: training_pb2.Run) -> bool:
            progress = run.progress
            is_training = progress.phase == "training" and progress.stage == stage
            return is_training and progress.step >= step and progress.epoch >= epoch

        return self._wait_for(run_id, f"step {step}", is_reached)

    def tear(self, run_id: str, worker: ProcessRef) -> Checkpoint:
        """Kill the worker once it has stored a checkpoint, and leave of the newest one what a cut upload leaves: no manifest."""
        wait_until(lambda: any(item.whole for item in self.checkpoints(run_id)), 60, "a stored checkpoint")
        os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not worker.is_alive(), 60, "the worker's end")
        newest = self.checkpoints(run_id)[-1]
        if newest.whole:
            self.store.delete(MODELS, f"{newest.prefix}/manifest.json")
        return replace(newest, whole=False)

    def _wait_for(
        self, run_id: str, description: str, is_reached: Callable[[training_pb2.Run], bool]
    ) -> training_pb2.Run:
        def check() -> training_pb2.Run | None:
            run = self.run(run_id)
            if is_reached(run):
                return run
            assert run.state <= training_pb2.RUN_STATE_RUNNING, f"{description}: {run.reason} {run.message}"
            return None

        return ask_until(check, description, 300)
