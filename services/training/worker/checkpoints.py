"""Checkpoints in the object store: `runs/RUN/EPOCH/stage-K-step-N/`, its files first and its signed manifest last."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tailor.errors import FailedPrecondition, NotFound
from tailor.logging import get_logger
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref

log = get_logger(__name__)

# Nothing else is stored or loaded. The .pt, .pth and .bin files named here are read with weights_only (a .bin is
# whole, though the model was in parts); training_args.bin, a pickle, stays behind.
NEEDED = re.compile(
    r"adapter_model\.safetensors|adapter_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|config\.json|generation_config\.json|optimizer\.(pt|bin)|pytorch_model_fsdp\.bin|scheduler\.pt|rng_state(_\d+)?\.pth|trainer_state\.json"
)
PLACE = re.compile(r"runs/[^/]+/(?P<epoch>\d+)/stage-(?P<stage>\d+)-step-(?P<step>\d+)/manifest\.json")
# Before what is signed, so that the signature is good for nothing else that the key signs.
PURPOSE = b"tailor checkpoint 1\n"
KEPT = 2
# What reading a manifest may raise that somebody else wrote.
NONSENSE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Signer(Protocol):
    """The workers' key."""

    def sign(self, data: bytes) -> bytes:
        """A signature of the data."""
        ...

    def verify(self, data: bytes, signature: bytes) -> bool:
        """True where this key signed the data."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a checkpoint is."""

    step: int
    epoch: int
    prefix: str


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on: after `step` steps, in which it was trained on `tokens` tokens."""

    step: int = 0
    tokens: int = 0


class Checkpoints:
    """The checkpoints of one stage of a run. `epoch` is this worker's: it writes under it alone."""

    def __init__(self, store: ObjectStore, signer: Signer, run_id: str, epoch: int, stage: int) -> None:
        self._store = store
        self._signer = signer
        self._run_id = run_id
        self._epoch = epoch
        self._stage = stage

    def save(self, step: int, folder: Path, tokens: int) -> None:
        """Store a trainer's checkpoint folder, made after so many trained tokens, then drop all but the newest two of this epoch
        and those before it: a worker whose epoch is over takes nothing from its successor."""
        place = Place(step, self._epoch, f"runs/{self._run_id}/{self._epoch}/stage-{self._stage}-step-{step}/")
        files = []
        for path in sorted(folder.iterdir()):
            if NEEDED.fullmatch(path.name):
                ref = self._store.put_file(MODELS, place.prefix + path.name, path)
                files.append({"path": path.name, "sha256": ref.sha256, "size_bytes": ref.size_bytes})
        content = {**self._identity(place), "tokens": tokens, "files": files}
        signature = self._signer.sign(_signed(content)).hex()
        manifest = json.dumps({**content, "signature": signature}, sort_keys=True).encode()
        self._store.put(MODELS, f"{place.prefix}manifest.json", manifest, "application/json")
        log.info("checkpoint stored", step=step, epoch=self._epoch)
        ours = [place for place in self._places() if place.epoch <= self._epoch]
        for old in ours[KEPT:]:
            self._drop(old)

    def newest(self, folder: Path) -> Resumed:
        """Load the stage's newest whole checkpoint, of any epoch, into an empty folder; step 0 where there is none.

        One that is torn, or that the workers' key did not sign as it stands there, is passed over.
        """
        for place in self._places():
            target = folder / f"checkpoint-{place.step}"
            try:
                manifest = self._manifest(place)
                for file in manifest["files"]:
                    ref = Ref(f"s3://{MODELS}/{place.prefix}{file['path']}", file["sha256"], int(file["size_bytes"]))
                    self._store.get_file(ref, target / file["path"])
            except (FailedPrecondition, NotFound, *NONSENSE) as error:
                log.warning("checkpoint passed over", step=place.step, epoch=place.epoch, error=type(error).__name__)
                _empty(target)
                continue
            return Resumed(place.step, int(manifest["tokens"]))
        return Resumed()

    def drop_all(self) -> None:
        """Remove every checkpoint of the stage, torn ones too, and its notes."""
        for key in self._store.list_keys(MODELS, f"runs/{self._run_id}/"):
            if f"/stage-{self._stage}-" in key:
                self._store.delete(MODELS, key)

    def _identity(self, place: Place) -> dict[str, object]:
        return {"run_id": self._run_id, "stage": self._stage, "epoch": place.epoch, "step": place.step}

    def _places(self) -> list[Place]:
        keys = self._store.list_keys(MODELS, f"runs/{self._run_id}/")
        matches = [match for match in map(PLACE.fullmatch, keys) if match and int(match["stage"]) == self._stage]
        places = [Place(int(m["step"]), int(m["epoch"]), m.string.removesuffix("manifest.json")) for m in matches]
        return sorted(places, key=lambda place: (-place.step, -place.epoch))

    def _manifest(self, place: Place) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self._store.read(MODELS, f"{place.prefix}manifest.json"))
        signature = bytes.fromhex(manifest.pop("signature"))
        if not self._signer.verify(_signed(manifest), signature):
            raise ValueError("the workers' key did not sign the manifest")
        if any(manifest[name] != value for name, value in self._identity(place).items()) or not manifest["files"]:
            raise ValueError("the manifest is another checkpoint's")
        if not all(NEEDED.fullmatch(str(file["path"])) for file in manifest["files"]):
            raise ValueError("the manifest names a file that no checkpoint has")
        return manifest

    def _drop(self, place: Place) -> None:
        # The manifest goes first: what is left of it then is no checkpoint.
        self._store.delete(MODELS, f"{place.prefix}manifest.json")
        for key in self._store.list_keys(MODELS, place.prefix):
            self._store.delete(MODELS, key)


def _signed(content: Mapping[str, object]) -> bytes:
    return PURPOSE + json.dumps(content, sort_keys=True).encode()


def _empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
