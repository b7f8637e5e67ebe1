"""Datasets and adapters as their manifests in the object store describe them, and the files that manifests list."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.training.domain import Adapter, Dataset
from services.training.ports import AdapterStore, DatasetStore
from tailor.dataset_ids import read_ids
from tailor.datasets import DatasetManifest
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref, corrupt_object


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """Raise FailedPrecondition (INVALID_MANIFEST) if a field that is read within is missing or has the wrong type."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FailedPrecondition(
            Reason.INVALID_MANIFEST, "The manifest does not describe an adapter. Train it again."
        ) from None


class StoredDatasets(DatasetStore):
    """Datasets by digest: `DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Dataset:
        """Raises NotFound (UNKNOWN_DATASET), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
        ref, data = _read_verified(self._store, DATASETS, f"{digest}/manifest.json", digest, missing)
        manifest = DatasetManifest.parse(data)
        return Dataset(ref, manifest.kind, manifest.specialist, manifest.teacher_tokens, manifest.judgements.count)

    def document_ids(self, manifest: Ref) -> Iterator[Sequence[str]]:
        """Raises NotFound, FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST, INVALID_DATASET)."""
        sources = DatasetManifest.parse(self._store.get(manifest)).sources
        yield from read_ids(self._store, sources, "document_id")


class StoredAdapters(AdapterStore):
    """Adapters by digest: `adapters/DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Adapter:
        """Raises NotFound (UNKNOWN_ADAPTER), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=digest)
        ref, data = _read_verified(self._store, MODELS, f"adapters/{digest}/manifest.json", digest, missing)
        with _wrap_errors():
            manifest = json.loads(data)
            return Adapter(
                ref,
                kind=manifest["kind"],
                weights=manifest["weights"],
                specialist=manifest["specialist"],
                base=manifest["base"],
                shape=manifest["recipe"]["adapter"],
            )


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
