"""The datasets bucket, as far as training looks into it."""

import hashlib
import json

from tailor.errors import FailedPrecondition, NotFound
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredDatasets:
    """Datasets by digest: `DIGEST/manifest.json`."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def manifest(self, digest: str) -> tuple[Ref, str]:
        """A dataset's manifest and its kind; NotFound (NO_SUCH_DATASET), FailedPrecondition (CORRUPT_OBJECT)."""
        key = f"{digest}/manifest.json"
        try:
            data = self._store.read(DATASETS, key)
        except NotFound:
            raise NotFound("NO_SUCH_DATASET", "There is no such dataset.", dataset_digest=digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise FailedPrecondition("CORRUPT_OBJECT", "The dataset's manifest is not what its name says.")
        return Ref(f"s3://{DATASETS}/{key}", digest, len(data)), str(json.loads(data).get("kind", ""))
