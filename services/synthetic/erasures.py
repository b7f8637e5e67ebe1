"""Erases documents, and the datasets with their rows, which a new dataset supersedes."""

import json
from dataclasses import dataclass

from services.synthetic.domain import Dataset
from services.synthetic.handlers import Synthetic, build, run_exclusively
from services.synthetic.ports import Holdings
from tailor.errors import NotFound, TailorError
from tailor.events.erased import Erased, Forgotten
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.words import DatasetKind

log = get_logger(__name__)


@dataclass(frozen=True)
class DatasetEraser:
    """Erases documents from synthetic's database and bucket."""

    app: Synthetic
    holdings: Holdings

    def forget(self, erased: Erased) -> Forgotten:
        """Drop the document, rebuild the datasets with its rows without it, then delete the old bytes. Idempotent."""
        entries = self.holdings.forget_document(erased.document_id)
        dropped: list[Dataset] = []
        for name in sorted({*self.holdings.specialists(), *self.app.specialists}):
            dropped += self._supersede(name, erased.document_id)
        files = self._delete_bytes(dropped)
        for dataset in dropped:
            self.holdings.drop_dataset(dataset)
        digests = tuple(sorted({dataset.digest for dataset in dropped}))
        return Forgotten({"documents": entries, "datasets": len(digests), "objects": files}, digests)

    def _supersede(self, name: str, document_id: str) -> list[Dataset]:
        """The specialist's datasets with rows of the document, after a new one was built if possible."""

        def supersede() -> list[Dataset]:
            tainted = [dataset for dataset in self.holdings.datasets(name) if document_id in dataset.document_ids]
            for kind, digest in self.holdings.newest_digests(name).items():
                if digest in {dataset.digest for dataset in tainted}:
                    self._rebuild(name, kind)
            return tainted

        return run_exclusively(self.app, name, supersede)

    def _rebuild(self, name: str, kind: DatasetKind) -> None:
        specialist = self.app.specialists.get(name)
        if specialist is None:
            return
        try:
            build(self.app, specialist, kind)
        except TailorError as error:
            if error.retryable:
                raise
            log.warning("erased dataset not superseded", specialist=name, kind=kind.value, reason=error.reason)

    def _delete_bytes(self, dropped: list[Dataset]) -> int:
        """Delete the datasets' objects, except splits that a dataset without the document shares."""
        doomed = {dataset.digest for dataset in dropped}
        if not doomed:
            return 0
        splits = set[str]().union(*(split_keys(self.app.store, digest) for digest in doomed))
        for other in {dataset.digest for dataset in self.holdings.datasets("")} - doomed:
            splits -= split_keys(self.app.store, other)
        # Manifests are deleted last, so that a retry still finds the splits that they name.
        keys = [*sorted(splits), *(f"{digest}/manifest.json" for digest in sorted(doomed))]
        existing = [key for key in keys if self.app.store.exists(DATASETS, key)]
        for key in existing:
            self.app.store.delete(DATASETS, key)
        return len(existing)


def split_keys(store: ObjectStore, digest: str) -> set[str]:
    """Keys of a dataset's splits; empty if its manifest no longer exists."""
    try:
        manifest = json.loads(store.read(DATASETS, f"{digest}/manifest.json"))
    except NotFound:
        return set()
    return {split["key"] for split in manifest["splits"].values()}
