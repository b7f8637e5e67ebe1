"""Forgetting documents: runs that rest on their rows end, checkpoints go, and so do the weights of retired adapters."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from services.training.domain import DATASET_ERASED, Launcher, Run, RunState, Stage
from services.training.handlers import MAX_PAGE
from services.training.ports import Runs
from services.training.transitions import cancel
from tailor.errors import Reason, Unavailable
from tailor.events.erased import Erased, Forgotten
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore

MESSAGE = "A document of its dataset was erased; the dataset that supersedes it is trained on instead."


@dataclass(frozen=True)
class Eraser:
    """Forgets within one installation. `work` is where workers of this machine keep their inputs."""

    runs: Runs
    launcher: Launcher
    store: ObjectStore
    work: Path
    now: Callable[[], datetime]

    def forget(self, erased: Erased) -> Forgotten:
        """End the runs, then delete. Unavailable until their workers have ended; again, it changes nothing."""
        known = list(every_run(self.runs))
        adapters = _tainted(reversed(known), erased)
        runs = [run for run in known if _rests_on(run, erased.datasets, adapters)]
        with self.runs.unit() as unit:
            unit.drop_adapters(adapters)
        ended = [self._end(run) for run in runs]
        if any(self._works(run) for run in ended):
            raise Unavailable(Reason.WORKER_ENDING, "The worker of a run on an erased document has not ended yet.")
        checkpoints = sum(self._drop_checkpoints(run) for run in ended)
        weights = sum(self._drop_adapter(digest) for digest in erased.retired)
        counts = {
            "runs_cancelled": sum(run.reason == DATASET_ERASED for run in ended),
            "checkpoint_objects": checkpoints,
            "adapter_objects": weights,
        }
        return Forgotten(counts)

    def _end(self, run: Run) -> Run:
        with self.runs.unit() as unit:
            held = unit.get(run.run_id) or run
            if held.state.ended:
                return held
            ended = replace(cancel(held, self.now()), reason=DATASET_ERASED, message=MESSAGE)
            unit.save(ended)
            unit.state_failure(ended)
        if ended.epoch:
            self.launcher.stop(ended.run_id, ended.epoch)
        return ended

    def _works(self, run: Run) -> bool:
        if run.state is not RunState.CANCELLED or not run.epoch or run.end_time is None:
            return False
        recent = self.now() - run.end_time < self.launcher.ends_within
        return recent and self.launcher.exit_code(run.run_id, run.epoch) is None

    def _drop_checkpoints(self, run: Run) -> int:
        for folder in self.work.glob(f"{run.run_id}-*"):
            shutil.rmtree(folder, ignore_errors=True)
        keys = self.store.list_keys(MODELS, f"runs/{run.run_id}/")
        # A manifest goes first: what is left of it then is no checkpoint.
        for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
            self.store.delete(MODELS, key)
        return len(keys)

    def _drop_adapter(self, digest: str) -> int:
        """Delete an adapter's files, but for those that another one shares, and its manifest."""
        manifest = f"adapters/{digest}/manifest.json"
        if not self.store.exists(MODELS, manifest):
            return 0
        keys = self._files(manifest)
        for other in self.store.list_keys(MODELS, "adapters/"):
            if other.endswith("/manifest.json") and other != manifest:
                keys -= self._files(other)
        for key in (*sorted(keys), manifest):
            self.store.delete(MODELS, key)
        return len(keys) + 1

    def _files(self, manifest: str) -> set[str]:
        return {str(file["key"]) for file in json.loads(self.store.read(MODELS, manifest))["files"]}


def _tainted(runs: Iterable[Run], erased: Erased) -> set[str]:
    """Digests of the adapters that learned from the datasets, or came from one that did. The runs are the oldest first."""
    found = set(erased.adapters)
    for run in runs:
        for stage in run.stages:
            learned = stage.dataset is not None and stage.dataset.sha256 in erased.datasets
            if stage.made is not None and (learned or not found.isdisjoint(_origins(stage))):
                found.add(stage.made.digest)
    return found


def _rests_on(run: Run, datasets: Iterable[str], adapters: set[str]) -> bool:
    """True where a stage learns from such a dataset, or starts from or is scored with such an adapter."""
    asked = {run.key.dataset_digest, run.key.preference_dataset_digest, *run.datasets}
    origins = {run.key.parent_digest, *(digest for stage in run.stages for digest in _origins(stage))}
    return not asked.isdisjoint(datasets) or not origins.isdisjoint(adapters)


def _origins(stage: Stage) -> set[str]:
    return {ref.sha256 for ref in (stage.parent, stage.reward) if ref is not None}


def every_run(runs: Runs) -> Iterator[Run]:
    """All runs, newest first."""
    before: tuple[datetime, str] | None = None
    while page := runs.page("", MAX_PAGE, before):
        yield from page
        before = (page[-1].create_time, page[-1].run_id)
