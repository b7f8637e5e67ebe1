"""Datasets and adapters as their manifests in the object store describe them, and the files that manifests list."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from services.training.domain import Adapter, Dataset
from tailor.dataset_ids import read_ids
from tailor.datasets import DatasetManifest
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object


def find_dataset(store: ObjectStore, digest: str) -> Dataset:
    """A dataset by digest. Raises NotFound (UNKNOWN_DATASET), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
    missing = NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
    ref, data = _read_verified(store, DATASETS, f"{digest}/manifest.json", digest, missing)
    manifest = DatasetManifest.parse(data)
    return Dataset(ref, manifest.kind, manifest.specialist, manifest.teacher_tokens, manifest.judgements.count)


def read_document_ids(store: ObjectStore, manifest: Ref) -> Iterator[Sequence[str]]:
    """Stream the ids of the documents behind a dataset's rows, in batches. Blocks.

    Raises NotFound if the dataset was deleted, FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST, INVALID_DATASET).
    """
    yield from read_ids(store, DatasetManifest.parse(store.get(manifest)).sources, "document_id")


def find_adapter(store: ObjectStore, digest: str) -> Adapter:
    """An adapter by digest. Raises NotFound (UNKNOWN_ADAPTER), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
    missing = NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=digest)
    ref, data = _read_verified(store, MODELS, f"adapters/{digest}/manifest.json", digest, missing)
    try:
        manifest = json.loads(data)
        described = {name: manifest[name] for name in ("kind", "weights", "specialist", "base")}
        return Adapter(ref, **described, shape=manifest["recipe"]["adapter"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FailedPrecondition(
            Reason.INVALID_MANIFEST, "The manifest does not describe an adapter. Train it again."
        ) from None


def _read_verified(store: ObjectStore, bucket: str, key: str, digest: str, missing: NotFound) -> tuple[Ref, bytes]:
    try:
        data = store.read(bucket, key)
    except NotFound:
        raise missing from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise corrupt_object(f"s3://{bucket}/{key}")
    return Ref(f"s3://{bucket}/{key}", digest, len(data)), data


def download_files(
    store: ObjectStore,
    files: Iterable[Mapping[str, Any]],
    folder: Path,
    wanted: Callable[[str], bool] = lambda _name: True,
) -> None:
    """Download and verify the wanted files of a manifest, from the models bucket into a new folder.

    Raises FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST) if they are not what the manifest says.
    """
    folder.mkdir()
    for file in files:
        name = str(file["path"])
        if Path(name).name != name:
            raise FailedPrecondition(Reason.INVALID_MANIFEST, "The manifest names a file outside its folder.")
        if wanted(name):
            ref = Ref(f"s3://{MODELS}/{file['key']}", str(file["sha256"]), int(file["size_bytes"]))
            store.get_file(ref, folder / name)
