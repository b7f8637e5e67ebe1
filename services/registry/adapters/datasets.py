"""Datasets in the object store."""

from collections.abc import Iterator, Sequence

from tailor.dataset_ids import read_ids
from tailor.datasets import DatasetManifest
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref


class StoredDatasetDocuments:
    """Reads manifests and the files that they name from the bucket `datasets`.

    Methods block. They raise NotFound for a dataset that was deleted, Unavailable while the store does not answer, and FailedPrecondition
    (INVALID_MANIFEST, INVALID_DATASET, CORRUPT_OBJECT) for a damaged one.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_manifest(self, manifest: Ref) -> DatasetManifest:
        return DatasetManifest.parse(self._store.get(manifest))

    def read_document_ids(self, manifest: DatasetManifest) -> Iterator[Sequence[str]]:
        """Stream the ids of its documents in batches."""
        return read_ids(self._store, manifest.sources, "document_id")
