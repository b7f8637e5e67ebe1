"""Erases documents, and the datasets with their rows, which a new dataset supersedes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from services.synthetic.corpus import ALL_SEGMENTS
from services.synthetic.domain import Dataset, is_text_id
from services.synthetic.handlers import Synthetic, build, run_exclusively
from services.synthetic.ports import Holdings
from tailor.errors import NotFound, TailorError
from tailor.events.erased import Erased, Forgotten
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.words import DatasetKind

log = get_logger(__name__)


@dataclass(frozen=True)
class DatasetEraser:
    """Erases documents, and texts that come from none, from synthetic's database and bucket."""

    app: Synthetic
    holdings: Holdings
    forget_import_row: Callable[[str], int]

    def forget(self, erased: Erased) -> Forgotten:
        """Drop the document or text, rebuild the datasets with its rows without it, then delete the old bytes. Idempotent.

        The same happens to the drafts of retired adapters and to the datasets with pairs of them. Those are not among the datasets of the
        answer, because they have no rows of the document.
        """
        is_text = is_text_id(erased.document_id)
        rows = self.forget_import_row(erased.document_id) if is_text else 0
        segment = ALL_SEGMENTS if is_text else self.holdings.segment_of(erased.document_id)
        entries, keys = self.holdings.forget_document(erased.document_id)
        drafts, texts = self.holdings.forget_drafts(erased.retired)
        files = self._delete([*keys, *texts])
        datasets: list[Dataset] = []
        ranked: list[Dataset] = []
        for name in sorted({*self.holdings.specialists(), *self.app.specialists}):
            ranked += self._supersede(name, partial(self._find_ranked, name, erased.retired))
            datasets += self._supersede(name, partial(self._find, name, erased.document_id, segment))
        files += self._delete_bytes([*datasets, *ranked])
        for dataset in {dataset.digest: dataset for dataset in (*datasets, *ranked)}.values():
            self.holdings.drop_dataset(dataset)
        digests = tuple(sorted({dataset.digest for dataset in datasets}))
        counts = {
            "documents": entries,
            "imported_rows": rows,
            "drafts": drafts,
            "datasets": len(digests),
            "ranked_datasets": len({dataset.digest for dataset in ranked} - {*digests}),
            "objects": files,
        }
        return Forgotten(counts, digests)

    def _find_ranked(self, name: str, adapters: Sequence[str]) -> list[Dataset]:
        """The specialist's datasets with pairs of the adapters' drafts."""
        return [
            dataset for dataset in self.holdings.datasets(name) if not {*adapters}.isdisjoint(dataset.draft_adapters)
        ]

    def _supersede(self, name: str, find: Callable[[], list[Dataset]]) -> list[Dataset]:
        """The specialist's datasets that are found, after a new one was built if possible."""

        def supersede() -> list[Dataset]:
            datasets = find()
            for kind, digest in self.holdings.newest_digests(name).items():
                if digest in {dataset.digest for dataset in datasets}:
                    self._rebuild(name, kind)
            return datasets

        return run_exclusively(self.app, name, supersede)

    def _find(self, name: str, document_id: str, segment: int | None) -> list[Dataset]:
        """The datasets whose sources name the document; datasets share files, and each file is read once."""
        names: dict[str, bool] = {}
        digests: set[str] = set()
        for digest, key in self.holdings.source_files(name, segment):
            if key not in names:
                names[key] = document_id in self._read_sources(key)
            if names[key]:
                digests.add(digest)
        datasets = (self.holdings.dataset(name, digest) for digest in sorted(digests))
        return [dataset for dataset in datasets if dataset is not None]

    def _read_sources(self, key: str) -> list[str]:
        """The ids of a sources file; none if an earlier attempt deleted it."""
        try:
            return self.app.files.read_column(self.app.store.read(DATASETS, key), "document_id")
        except NotFound:
            return []

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

    def _delete_bytes(self, datasets: list[Dataset]) -> int:
        """Delete the datasets' objects, except files that a dataset without the document shares."""
        digests = sorted({dataset.digest for dataset in datasets})
        if not digests:
            return 0
        # Manifests are deleted last.
        return self._delete([*self.holdings.unshared_files(digests), *(f"{key}/manifest.json" for key in digests)])

    def _delete(self, keys: Sequence[str]) -> int:
        objects = [key for key in keys if self.app.store.exists(DATASETS, key)]
        for key in objects:
            self.app.store.delete(DATASETS, key)
        return len(objects)
