"""Datasets and adapters as their manifests in the object store describe them, and the files that manifests list."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.training.domain import Adapter, Dataset
from services.training.ports import AdapterStore, DatasetStore
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


@contextmanager
def _wrap_errors() -> Iterator[None]:
    """Raise FailedPrecondition (INVALID_MANIFEST) if a field that is read within is missing or has the wrong type."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FailedPrecondition(
            Reason.INVALID_MANIFEST, "The manifest does not describe a dataset or an adapter. Build it again."
        ) from None


def find_split(manifest: bytes, name: str) -> Ref | None:
    """The rows of a dataset's split; None if it has none. Raises FailedPrecondition (INVALID_MANIFEST)."""
    with _wrap_errors():
        split = json.loads(manifest).get("splits", {}).get(name)
        return Ref(f"s3://{DATASETS}/{split['key']}", str(split["sha256"]), int(split["size_bytes"])) if split else None


class StoredDatasets(DatasetStore):
    """Datasets by digest: `DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Dataset:
        """Raises NotFound (UNKNOWN_DATASET), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
        ref, manifest = _read_manifest(self._store, DATASETS, f"{digest}/manifest.json", digest, missing)
        with _wrap_errors():
            tokens = int(manifest.get("teacher", {}).get("tokens", 0))
            return Dataset(ref, manifest["kind"], manifest["specialist"], tokens, len(manifest.get("judgements", ())))


class StoredAdapters(AdapterStore):
    """Adapters by digest: `adapters/DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Adapter:
        """Raises NotFound (UNKNOWN_ADAPTER), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=digest)
        ref, manifest = _read_manifest(self._store, MODELS, f"adapters/{digest}/manifest.json", digest, missing)
        with _wrap_errors():
            return Adapter(
                ref,
                kind=manifest["kind"],
                weights=manifest["weights"],
                specialist=manifest["specialist"],
                base=manifest["base"],
                shape=manifest["recipe"]["adapter"],
            )


def _read_manifest(
    store: ObjectStore, bucket: str, key: str, digest: str, missing: NotFound
) -> tuple[Ref, dict[str, Any]]:
    try:
        data = store.read(bucket, key)
    except NotFound:
        raise missing from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise FailedPrecondition(Reason.CORRUPT_OBJECT, "The manifest does not match its digest.", digest=digest)
    with _wrap_errors():
        return Ref(f"s3://{bucket}/{key}", digest, len(data)), json.loads(data)


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
