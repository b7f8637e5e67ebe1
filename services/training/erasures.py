"""Erasing documents: end the runs that use their rows, then delete checkpoints and the weights of retired adapters."""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from services.training.adapters.sql import SqlRuns
from services.training.domain import DATASET_ERASED, Run, RunState, Stage
from services.training.ports import Launcher
from services.training.transitions import cancel
from tailor.errors import Reason, Unavailable
from tailor.events.erased import Erased, Forgotten
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore

MESSAGE = "A document of its dataset was erased. The dataset that supersedes it is trained on instead."


@dataclass(frozen=True)
class Eraser:
    """Erases within one installation. `work` is where workers of this machine keep their inputs."""

    runs: SqlRuns
    launcher: Launcher
    store: ObjectStore
    work: Path
    now: Callable[[], datetime]

    def forget(self, erased: Erased) -> Forgotten:
        """End the affected runs, then delete their files. Idempotent. Raises Unavailable until their workers have ended."""
        every = self.runs.page()
        adapters = _tainted_adapters(reversed(every), erased)
        runs = [run for run in every if _uses(run, erased.datasets, adapters)]
        with self.runs.unit() as unit:
            unit.drop_adapters(adapters)
            unit.drop_datasets(erased.datasets)
        ended = [self._end(run) for run in runs]
        if any(self._may_work(run) for run in ended):
            raise Unavailable(Reason.WORKER_ENDING, "The worker of a run on an erased document has not ended yet.")
        checkpoints = sum(self._delete_checkpoints(run) for run in ended)
        weights = sum(self._delete_adapter(digest) for digest in erased.retired)
        counts = {
            "runs_cancelled": sum(run.reason == DATASET_ERASED for run in ended),
            "checkpoint_objects": checkpoints,
            "adapter_objects": weights,
        }
        return Forgotten(counts)

    def _end(self, run: Run) -> Run:
        with self.runs.unit() as unit:
            stored = unit.get(run.run_id)
            if stored.state.ended:
                return stored
            ended = replace(cancel(stored, self.now()), reason=DATASET_ERASED, message=MESSAGE)
            unit.save(ended)
            unit.publish_failure(ended)
        if ended.epoch:
            self.launcher.stop(ended.run_id, ended.epoch)
        return ended

    def _may_work(self, run: Run) -> bool:
        if run.state is not RunState.CANCELLED or not run.epoch or run.end_time is None:
            return False
        recent = self.now() - run.end_time < self.launcher.ends_within
        return recent and self.launcher.exit_code(run.run_id, run.epoch) is None

    def _delete_checkpoints(self, run: Run) -> int:
        for folder in self.work.glob(f"{run.run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        keys = self.store.list_keys(MODELS, f"runs/{run.run_id}/")
        # Manifests first: the remaining files are no longer a checkpoint then.
        for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
            self.store.delete(MODELS, key)
        return len(keys)

    def _delete_adapter(self, digest: str) -> int:
        """Delete an adapter's manifest, and its files except those that another adapter shares."""
        manifest = f"adapters/{digest}/manifest.json"
        if not self.store.exists(MODELS, manifest):
            return 0
        keys = self._list_files(manifest)
        for other in self.store.list_keys(MODELS, "adapters/"):
            if other.endswith("/manifest.json") and other != manifest:
                keys -= self._list_files(other)
        for key in (*sorted(keys), manifest):
            self.store.delete(MODELS, key)
        return len(keys) + 1

    def _list_files(self, manifest: str) -> set[str]:
        return {str(file["key"]) for file in json.loads(self.store.read(MODELS, manifest))["files"]}


def _tainted_adapters(runs: Iterable[Run], erased: Erased) -> set[str]:
    """Digests of adapters that learned from the datasets, directly or through an adapter that did. Expects the oldest run first.

    The adapter may be a parent, a reward adapter, or merged into the base.
    """
    tainted = set(erased.adapters)
    for run in runs:
        for stage in run.stages:
            learned = stage.dataset is not None and stage.dataset.sha256 in erased.datasets
            if stage.result is not None and (learned or not tainted.isdisjoint({run.base_adapter, *_origins(stage)})):
                tainted.add(stage.result.digest)
    return tainted


def _uses(run: Run, datasets: Iterable[str], adapters: set[str]) -> bool:
    """True if a stage learns from one of the datasets, or starts from or is scored by one of the adapters."""
    sources = {run.key.dataset_digest, run.key.preference_dataset_digest, *run.datasets}
    origins = {run.key.parent_digest, run.base_adapter, *(digest for stage in run.stages for digest in _origins(stage))}
    return not sources.isdisjoint(datasets) or not origins.isdisjoint(adapters)


def _origins(stage: Stage) -> set[str]:
    return {ref.sha256 for ref in (stage.parent, stage.reward, stage.held_out_reward) if ref is not None}
