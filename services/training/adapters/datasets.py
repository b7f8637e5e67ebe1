"""The datasets and models buckets, as far as training looks into them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.training.domain import Adapter, Dataset
from tailor.errors import FailedPrecondition, NotFound, Reason
from tailor.storage.buckets import DATASETS, MODELS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


@contextmanager
def _described() -> Iterator[None]:
    """FailedPrecondition (INVALID_MANIFEST) where what is read within is not there, or of another type."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FailedPrecondition(
            Reason.INVALID_MANIFEST, "A manifest does not say what a dataset or adapter is; make it again."
        ) from None


def find_split(manifest: bytes, name: str) -> Ref | None:
    """The rows of a dataset's split; None where it has none. FailedPrecondition (INVALID_MANIFEST)."""
    with _described():
        split = json.loads(manifest).get("splits", {}).get(name)
        return Ref(f"s3://{DATASETS}/{split['key']}", str(split["sha256"]), int(split["size_bytes"])) if split else None


class StoredDatasets:
    """Datasets by digest: `DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Dataset:
        """A dataset by its digest; NotFound (UNKNOWN_DATASET), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_DATASET, "There is no such dataset.", dataset_digest=digest)
        ref, manifest = _manifest(self._store, DATASETS, f"{digest}/manifest.json", digest, missing)
        with _described():
            tokens = int(manifest.get("teacher", {}).get("tokens", 0))
            return Dataset(ref, manifest["kind"], manifest["specialist"], tokens, len(manifest.get("judgements", ())))


class StoredAdapters:
    """Adapters by digest: `adapters/DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, digest: str) -> Adapter:
        """An adapter by its digest; NotFound (UNKNOWN_ADAPTER), FailedPrecondition (CORRUPT_OBJECT, INVALID_MANIFEST)."""
        missing = NotFound(Reason.UNKNOWN_ADAPTER, "There is no such adapter.", adapter_digest=digest)
        ref, manifest = _manifest(self._store, MODELS, f"adapters/{digest}/manifest.json", digest, missing)
        with _described():
            return Adapter(
                ref,
                kind=manifest["kind"],
                weights=manifest["weights"],
                specialist=manifest["specialist"],
                base=manifest["base"],
                shape=manifest["recipe"]["adapter"],
            )


def _manifest(store: ObjectStore, bucket: str, key: str, digest: str, missing: NotFound) -> tuple[Ref, dict[str, Any]]:
    try:
        data = store.read(bucket, key)
    except NotFound:
        raise missing from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise FailedPrecondition(Reason.CORRUPT_OBJECT, "The manifest is not what its name says.", digest=digest)
    with _described():
        return Ref(f"s3://{bucket}/{key}", digest, len(data)), json.loads(data)
