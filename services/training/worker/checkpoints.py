"""Checkpoints in the object store: `runs/RUN/EPOCH/stage-K-step-N/`, files first, the signed manifest last."""

import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.methods.stage_results import MALFORMED, sign_json, verify_json
from tailor.errors import FailedPrecondition, NotFound
from tailor.logging import get_logger
from tailor.rpc.identity import Identity
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

# Only these files are stored or loaded. transformers reads the .pt, .pth and .bin files among them with weights_only (a .bin is the state
# of a sharded model). training_args.bin, a pickle, is not stored.
NEEDED = re.compile(
    r"adapter_model\.safetensors|within_budget\.safetensors|best\.safetensors|adapter_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|config\.json|generation_config\.json|optimizer\.(pt|bin)|pytorch_model_fsdp\.bin|scheduler\.pt|rng_state(_\d+)?\.pth|trainer_state\.json"
)
PLACE = re.compile(r"runs/[^/]+/(?P<epoch>\d+)/stage-(?P<stage>\d+)-step-(?P<step>\d+)/manifest\.json")
# Prefix of the signed data, so that a signature is valid for checkpoints only.
PURPOSE = b"tailor checkpoint 1\n"
KEPT = 2


@dataclass(frozen=True)
class CheckpointPlace:
    """The location of a checkpoint."""

    step: int
    epoch: int
    prefix: str


@dataclass(frozen=True)
class ResumePoint:
    """Where a stage resumes: after `step` steps on `tokens` tokens."""

    step: int = 0
    tokens: int = 0


class Checkpoints:
    """The checkpoints of one stage of a run. `epoch` is this worker's; it writes only under its own epoch."""

    def __init__(self, store: ObjectStore, signer: Identity, run_id: str, epoch: int, stage: int) -> None:
        self._store = store
        self._signer = signer
        self._run_id = run_id
        self._epoch = epoch
        self._stage = stage

    def save(self, step: int, folder: Path, tokens: int) -> None:
        """Store a trainer's checkpoint folder, then delete all but the newest two of this and earlier epochs.

        Checkpoints of later epochs stay: a worker whose epoch is over must not delete its successor's. Blocks while it uploads.
        """
        place = CheckpointPlace(
            step, self._epoch, f"runs/{self._run_id}/{self._epoch}/stage-{self._stage}-step-{step}/"
        )
        files = []
        for path in sorted(folder.iterdir()):
            if NEEDED.fullmatch(path.name):
                ref = self._store.put_file(MODELS, place.prefix + path.name, path)
                files.append({"path": path.name, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        content = {**self._identity(place), "tokens": tokens, "files": files}
        manifest = sign_json(self._signer, PURPOSE, content)
        self._store.put(MODELS, f"{place.prefix}manifest.json", manifest, "application/json")
        log.info("checkpoint stored", step=step, epoch=self._epoch)
        places = [place for place in self._list_places() if place.epoch <= self._epoch]
        for old in places[KEPT:]:
            self._delete(old)

    def load_newest(self, folder: Path) -> ResumePoint:
        """Download the stage's newest complete checkpoint, of any epoch, into an empty folder. Step 0 if there is none.

        Skips checkpoints that are incomplete, altered, or not signed with the workers' key.
        """
        for place in self._list_places():
            target = folder / f"checkpoint-{place.step}"
            try:
                manifest = self._read_manifest(place)
                for file in manifest["files"]:
                    ref = Ref(f"s3://{MODELS}/{place.prefix}{file['path']}", file["sha256"], int(file["size_bytes"]))
                    self._store.get_file(ref, target / file["path"])
            except (FailedPrecondition, NotFound, *MALFORMED) as error:
                log.warning("checkpoint skipped", step=place.step, epoch=place.epoch, error=type(error).__name__)
                _delete_folder(target)
                continue
            return ResumePoint(place.step, int(manifest["tokens"]))
        return ResumePoint()

    def delete_all(self) -> None:
        """Delete every checkpoint of the stage, including incomplete ones, and its notes."""
        for key in self._store.list_keys(MODELS, f"runs/{self._run_id}/"):
            if f"/stage-{self._stage}-" in key:
                self._store.delete(MODELS, key)

    def _identity(self, place: CheckpointPlace) -> dict[str, object]:
        return {"run_id": self._run_id, "stage": self._stage, "epoch": place.epoch, "step": place.step}

    def _list_places(self) -> list[CheckpointPlace]:
        """Checkpoints with a manifest, newest first."""
        keys = self._store.list_keys(MODELS, f"runs/{self._run_id}/")
        matches = [match for match in map(PLACE.fullmatch, keys) if match and int(match["stage"]) == self._stage]
        places = [
            CheckpointPlace(int(match["step"]), int(match["epoch"]), match.string.removesuffix("manifest.json"))
            for match in matches
        ]
        return sorted(places, key=lambda place: (-place.step, -place.epoch))

    def _read_manifest(self, place: CheckpointPlace) -> dict[str, Any]:
        manifest = verify_json(self._signer, PURPOSE, self._store.read(MODELS, f"{place.prefix}manifest.json"))
        if any(manifest[name] != value for name, value in self._identity(place).items()) or not manifest["files"]:
            raise ValueError("the manifest belongs to another checkpoint")
        if not all(NEEDED.fullmatch(str(file["path"])) for file in manifest["files"]):
            raise ValueError("the manifest names a file that no checkpoint has")
        return manifest

    def _delete(self, place: CheckpointPlace) -> None:
        # The manifest first: the remaining files are no longer a checkpoint then.
        self._store.delete(MODELS, f"{place.prefix}manifest.json")
        for key in self._store.list_keys(MODELS, place.prefix):
            self._store.delete(MODELS, key)


class Uploads:
    """Uploads in a background thread, one at a time. An upload's exception is raised by the next call."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._running: Future[None] | None = None

    def begin(self, upload: Callable[[], None]) -> None:
        """Start an upload. Blocks until the previous one has ended."""
        self.finish()
        self._running = self._executor.submit(upload)

    def finish(self) -> None:
        """Block until no upload is running."""
        running, self._running = self._running, None
        if running is not None:
            running.result()


def _delete_folder(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
