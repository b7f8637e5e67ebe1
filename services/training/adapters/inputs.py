"""The inputs of a run, downloaded to the worker's disk and verified."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.adapters.manifests import download_files
from services.training.spec import WorkerSpec
from tailor.datasets import HELD_OUT, TRAIN, DatasetManifest
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class StoredAdapter:
    """An earlier run's adapter: the folder with its files, its manifest, and the manifest's digest."""

    folder: Path
    manifest: Mapping[str, Any]
    digest: str

    @property
    def shape(self) -> Mapping[str, object]:
        """The `[adapter]` table of its recipe."""
        shape: Mapping[str, object] = self.manifest["recipe"]["adapter"]
        return shape


@dataclass(frozen=True)
class Inputs:
    """The base's folder and licence, the Parquet files of both splits in order, and the adapters that the run names."""

    base: Path
    licence: str
    train: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    parent: StoredAdapter | None = None
    reward: StoredAdapter | None = None
    held_out_reward: StoredAdapter | None = None


def download_inputs(store: ObjectStore, spec: WorkerSpec, folder: Path) -> Inputs:
    """Download base, rows and adapters.

    Raises FailedPrecondition if they are not what the run names: CORRUPT_OBJECT, INVALID_MANIFEST, BASE_CHANGED, NO_TRAIN_ROWS,
    WRONG_KIND or WRONG_BASE.
    """
    dataset = DatasetManifest.parse(store.get(spec.dataset_manifest))
    train = download_split(store, dataset, TRAIN, folder / TRAIN)
    if not train:
        raise FailedPrecondition(Reason.NO_TRAIN_ROWS, "The dataset has no rows to train on.")
    held_out = download_split(store, dataset, HELD_OUT, folder / HELD_OUT)
    licence = _download_base(store, spec, folder / "base")
    return Inputs(
        folder / "base",
        licence,
        train,
        held_out=held_out,
        parent=_download_adapter(store, spec, spec.parent, "policy", folder / "parent") if spec.parent else None,
        reward=_download_adapter(store, spec, spec.reward, "reward", folder / "reward") if spec.reward else None,
        held_out_reward=_download_adapter(store, spec, spec.held_out_reward, "reward", folder / "held_out_reward")
        if spec.held_out_reward
        else None,
    )


def download_split(store: ObjectStore, dataset: DatasetManifest, name: str, folder: Path) -> tuple[Path, ...]:
    """Download and verify a split's files that have rows into a new folder, and return their paths in order."""
    folder.mkdir(parents=True)
    paths = []
    for number, file in enumerate(file for file in dataset.split(name).files if file.rows):
        paths.append(folder / f"{number:06}.parquet")
        store.get_file(file.ref, paths[-1])
    return tuple(paths)


def _download_base(store: ObjectStore, spec: WorkerSpec, folder: Path) -> str:
    data = store.read(MODELS, f"bases/{spec.base}/manifest.json")
    if hashlib.sha256(data).hexdigest() != spec.base_digest:
        raise FailedPrecondition(
            Reason.BASE_CHANGED, "The base's manifest has changed since this run was started. Create a new run."
        )
    manifest = json.loads(data)
    download_files(store, manifest["files"], folder)
    return str(manifest["licence"])


def _download_adapter(store: ObjectStore, spec: WorkerSpec, ref: Ref, kind: str, folder: Path) -> StoredAdapter:
    manifest = json.loads(store.get(ref))
    if manifest.get("kind") != kind or manifest.get("weights") != "adapter":
        raise FailedPrecondition(
            Reason.WRONG_KIND,
            f"The run needs an adapter of kind `{kind}`. A model with all weights is not an adapter: add it as a base"
            " (`adapter:DIGEST`) and train on that.",
        )
    if manifest.get("base_digest") != spec.base_digest:
        raise FailedPrecondition(
            Reason.WRONG_BASE, "The adapter was trained on another base. Name one that was trained on this base."
        )
    download_files(store, manifest["files"], folder)
    return StoredAdapter(folder, manifest, ref.sha256)
