"""What a run is made from, brought to the worker's disk and verified."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from services.training.spec import WorkerSpec
from tailor.errors import FailedPrecondition
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


@dataclass(frozen=True)
class Inputs:
    """The base's folder with its licence, and the training rows' Parquet file."""

    base: Path
    licence: str
    train: Path


def bring(store: ObjectStore, spec: WorkerSpec, folder: Path) -> Inputs:
    """Download base and rows. FailedPrecondition (CORRUPT_OBJECT, BASE_CHANGED, NO_TRAIN_ROWS) where they are not what the run names."""
    dataset = json.loads(store.get(spec.dataset_manifest))
    split = dataset.get("splits", {}).get("train")
    if not split:
        raise FailedPrecondition("NO_TRAIN_ROWS", "The dataset has no rows to train on.")
    train = folder / "train.parquet"
    store.get_file(Ref(f"s3://{DATASETS}/{split['key']}", split["sha256"], int(split["size_bytes"])), train)
    manifest = store.read(MODELS, f"bases/{spec.base}/manifest.json")
    if hashlib.sha256(manifest).hexdigest() != spec.base_digest:
        raise FailedPrecondition("BASE_CHANGED", "The base's manifest is not the one that this run was started with.")
    described = json.loads(manifest)
    base = folder / "base"
    base.mkdir()
    for file in described["files"]:
        if Path(file["path"]).name != file["path"]:
            raise FailedPrecondition("BAD_BASE", "The base's manifest names a file outside its folder.")
        ref = Ref(f"s3://{MODELS}/{file['key']}", file["sha256"], int(file["size_bytes"]))
        store.get_file(ref, base / file["path"])
    return Inputs(base, described["licence"], train)
