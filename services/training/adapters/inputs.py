"""What a run is made from, brought to the worker's disk and verified."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.training.adapters.datasets import find_split
from services.training.adapters.stored_files import bring_files
from services.training.spec import WorkerSpec
from tailor.errors import FailedPrecondition, Reason
from tailor.storage.buckets import MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class StoredAdapter:
    """An earlier run's adapter: its files, its manifest, and the manifest's digest."""

    folder: Path
    manifest: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class Inputs:
    """The base's folder with its licence, the Parquet files of both splits, and the adapters that the run names."""

    base: Path
    licence: str
    train: Path
    held_out: Path | None = None
    parent: StoredAdapter | None = None
    reward: StoredAdapter | None = None


def bring(store: ObjectStore, spec: WorkerSpec, folder: Path) -> Inputs:
    """Download base, rows and adapters.

    FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST, BASE_CHANGED, NO_TRAIN_ROWS, WRONG_KIND, WRONG_BASE) where they are not what the run
    names.
    """
    dataset = store.get(spec.dataset_manifest)
    train = _bring_split(store, find_split(dataset, "train"), folder / "train.parquet")
    if train is None:
        raise FailedPrecondition(Reason.NO_TRAIN_ROWS, "The dataset has no rows to train on.")
    held_out = _bring_split(store, find_split(dataset, "held_out"), folder / "held_out.parquet")
    licence = _bring_base(store, spec, folder / "base")
    return Inputs(
        folder / "base",
        licence,
        train,
        held_out=held_out,
        parent=_bring_adapter(store, spec, spec.parent, "policy", folder / "parent") if spec.parent else None,
        reward=_bring_adapter(store, spec, spec.reward, "reward", folder / "reward") if spec.reward else None,
    )


def _bring_split(store: ObjectStore, split: Ref | None, path: Path) -> Path | None:
    if split is None:
        return None
    store.get_file(split, path)
    return path


def _bring_base(store: ObjectStore, spec: WorkerSpec, folder: Path) -> str:
    manifest = store.read(MODELS, f"bases/{spec.base}/manifest.json")
    if hashlib.sha256(manifest).hexdigest() != spec.base_digest:
        raise FailedPrecondition(
            Reason.BASE_CHANGED, "The base's manifest is not the one that this run was started with."
        )
    described = json.loads(manifest)
    bring_files(store, described["files"], folder)
    return str(described["licence"])


def _bring_adapter(store: ObjectStore, spec: WorkerSpec, ref: Ref, kind: str, folder: Path) -> StoredAdapter:
    manifest = json.loads(store.get(ref))
    if manifest.get("kind") != kind or manifest.get("weights") != "adapter":
        raise FailedPrecondition(
            Reason.WRONG_KIND,
            f"The run needs an adapter of kind `{kind}` there. All weights of a model are no adapter: add them as a base"
            " (`adapter:DIGEST`) and train on that.",
        )
    if manifest.get("base_digest") != spec.base_digest:
        raise FailedPrecondition(Reason.WRONG_BASE, "The adapter was trained on another base; name one of this base.")
    bring_files(store, manifest["files"], folder)
    return StoredAdapter(folder, manifest, ref.sha256)
