"""Checkpoints in the object store: `runs/RUN/EPOCH/step-N/`, its files first and its manifest last."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tailor.errors import FailedPrecondition, NotFound
from tailor.logging import get_logger
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

# Nothing else is stored or loaded. The .pt and .pth files are read with weights_only; training_args.bin, a pickle, stays behind.
NEEDED = re.compile(
    r"adapter_model\.safetensors|adapter_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|config\.json|generation_config\.json|optimizer\.pt|scheduler\.pt|rng_state(_\d+)?\.pth|trainer_state\.json"
)
PLACE = re.compile(r"runs/[^/]+/(?P<epoch>\d+)/step-(?P<step>\d+)/manifest\.json")
KEPT = 2


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is."""

    step: int
    epoch: int
    prefix: str


class Checkpoints:
    """The checkpoints of one run. `epoch` is this worker's: it writes under it alone."""

    def __init__(self, store: ObjectStore, run_id: str, epoch: int) -> None:
        self._store = store
        self._run_id = run_id
        self._epoch = epoch

    def save(self, step: int, folder: Path) -> None:
        """Store a trainer's checkpoint folder, then drop all but the newest two."""
        prefix = f"runs/{self._run_id}/{self._epoch}/step-{step}/"
        files = []
        for path in sorted(folder.iterdir()):
            if NEEDED.fullmatch(path.name):
                ref = self._store.put_file(MODELS, prefix + path.name, path)
                files.append({"path": path.name, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        manifest = json.dumps({"run_id": self._run_id, "step": step, "files": files}, sort_keys=True).encode()
        self._store.put(MODELS, f"{prefix}manifest.json", manifest, "application/json")
        for place in self._places()[KEPT:]:
            self._drop(place)

    def newest(self, folder: Path) -> int:
        """Load the newest whole checkpoint, of any epoch, into an empty folder; its step, or 0 where there is none.

        A checkpoint that is torn or was tampered with is passed over.
        """
        for place in self._places():
            target = folder / f"checkpoint-{place.step}"
            try:
                for ref, path in self._files(place):
                    self._store.get_file(ref, target / path)
            except (FailedPrecondition, NotFound, ValueError, KeyError, TypeError) as error:
                log.warning("checkpoint passed over", step=place.step, epoch=place.epoch, error=type(error).__name__)
                _empty(target)
                continue
            return place.step
        return 0

    def drop_all(self) -> None:
        """Remove every checkpoint of the run, torn ones too."""
        for key in self._store.list_keys(MODELS, f"runs/{self._run_id}/"):
            self._store.delete(MODELS, key)

    def _places(self) -> list[Place]:
        keys = self._store.list_keys(MODELS, f"runs/{self._run_id}/")
        matches = [match for match in map(PLACE.fullmatch, keys) if match is not None]
        places = [Place(int(m["step"]), int(m["epoch"]), m.string.removesuffix("manifest.json")) for m in matches]
        return sorted(places, key=lambda place: (-place.step, -place.epoch))

    def _files(self, place: Place) -> Iterator[tuple[Ref, str]]:
        manifest = json.loads(self._store.read(MODELS, f"{place.prefix}manifest.json"))
        if manifest["run_id"] != self._run_id or manifest["step"] != place.step or not manifest["files"]:
            raise ValueError("the manifest is another checkpoint's")
        for file in manifest["files"]:
            path = str(file["path"])
            if not NEEDED.fullmatch(path):
                raise ValueError("the manifest names a file that no checkpoint has")
            yield Ref(f"s3://{MODELS}/{place.prefix}{path}", str(file["sha256"]), int(file["size_bytes"])), path

    def _drop(self, place: Place) -> None:
        # The manifest goes first: what is left of it then is no checkpoint.
        self._store.delete(MODELS, f"{place.prefix}manifest.json")
        for key in self._store.list_keys(MODELS, place.prefix):
            self._store.delete(MODELS, key)


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
