"""Forgetting documents: what was kept of one, and the datasets that hold its rows, which are superseded by a new one."""

import json
from dataclasses import dataclass
from typing import Protocol

from services.synthetic.domain import Dataset, DatasetKind
from services.synthetic.handlers import LOCK_ATTEMPTS, LOCK_SECONDS, Synthetic, build
from tailor.errors import Aborted, NotFound, Reason, TailorError
from tailor.events.erased import Erased, Forgotten
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)


class Holdings(Protocol):
    """What the database holds of documents and datasets."""

    def forget_document(self, document_id: str) -> int:
        """Drop a document, its sketch, its side of the split and what a teacher made of it; how many entries there were."""
        ...

    def datasets(self, specialist: str) -> list[Dataset]:
        """Every dataset of a specialist; of all where the name is empty."""
        ...

    def specialists(self) -> list[str]:
        """Everyone who has a dataset, by name."""
        ...

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of what was built last, by kind; without those of which nothing was."""
        ...

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset; nothing was built last where it was the newest."""
        ...


@dataclass(frozen=True)
class Eraser:
    """Forgets within one installation."""

    app: Synthetic
    holdings: Holdings

    def forget(self, erased: Erased) -> Forgotten:
        """Drop the document, build what its rows were in without it, then delete the old bytes. Again, it changes nothing."""
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
        """The specialist's datasets with rows of the document, once a new one was built, where one can be."""
        for _ in range(LOCK_ATTEMPTS):
            with self.app.repository.building(name) as mine:
                if mine:
                    held = [one for one in self.holdings.datasets(name) if document_id in one.document_ids]
                    for kind, digest in self.holdings.newest_digests(name).items():
                        if digest in {one.digest for one in held}:
                            self._rebuild(name, kind)
                    return held
            self.app.sleep(LOCK_SECONDS)
        raise Aborted(
            Reason.BUILD_RUNNING, "Another replica builds this specialist's dataset; it is erased after that."
        )

    def _rebuild(self, name: str, kind: DatasetKind) -> None:
        specialist = self.app.specialists.get(name)
        if specialist is None:
            return
        try:
            build(self.app, specialist, kind)
        except TailorError as error:
            if error.retryable:
                raise
            log.warning("no dataset supersedes the old one", specialist=name, kind=kind.value, reason=error.reason)

    def _delete_bytes(self, dropped: list[Dataset]) -> int:
        """Delete the datasets' objects, but for splits that a dataset without the document shares."""
        doomed = {dataset.digest for dataset in dropped}
        if not doomed:
            return 0
        splits = set[str]().union(*(split_keys(self.app.store, digest) for digest in doomed))
        for other in {one.digest for one in self.holdings.datasets("")} - doomed:
            splits -= split_keys(self.app.store, other)
        # The manifests go last: until then a second try finds what they name.
        keys = [*sorted(splits), *(f"{digest}/manifest.json" for digest in sorted(doomed))]
        there = [key for key in keys if self.app.store.exists(DATASETS, key)]
        for key in there:
            self.app.store.delete(DATASETS, key)
        return len(there)


def split_keys(store: ObjectStore, digest: str) -> set[str]:
    """Keys of a dataset's splits; none where its manifest is gone."""
    try:
        manifest = json.loads(store.read(DATASETS, f"{digest}/manifest.json"))
    except NotFound:
        return set()
    return {split["key"] for split in manifest["splits"].values()}
