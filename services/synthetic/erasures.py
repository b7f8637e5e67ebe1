"""Erases documents, and the datasets with their rows, which a new dataset supersedes. Also what was derived from a superseded version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
        """Drop the document or text, rebuild the datasets with its rows without it, then delete the old bytes. Idempotent."""
        is_text = is_text_id(erased.document_id)
        rows = self.forget_import_row(erased.document_id) if is_text else 0
        segment = ALL_SEGMENTS if is_text else self.holdings.segment_of(erased.document_id)
        entries, keys = self.holdings.forget_document(erased.document_id)
        digests, files = self._supersede_all(erased.document_id, segment, self._delete(keys))
        return Forgotten(
            {"documents": entries, "imported_rows": rows, "datasets": len(digests), "objects": files}, digests
        )

    def supersede(self, superseded: Erased) -> Forgotten:
        """Rebuild the datasets with rows of versions before the superseding one, then delete the old bytes. Idempotent.

        The document stays. If its new version has not arrived yet, the old one is dropped, and the datasets are built without it.
        """
        document_id = superseded.document_id
        segment, held = self.holdings.segment_of(document_id), self.holdings.held_version(document_id)
        if held is not None and held[0] < superseded.sequence:
            held, (_, keys) = None, self.holdings.forget_document(document_id)
        else:
            keys = self.holdings.forget_derived(document_id)
        current = "" if held is None else held[1]
        digests, files = self._supersede_all(document_id, segment, self._delete(keys), current)
        return Forgotten({"datasets": len(digests), "objects": files}, digests)

    def _supersede_all(
        self, document_id: str, segment: int | None, files: int, current: str = ""
    ) -> tuple[tuple[str, ...], int]:
        """Digests of the datasets that were superseded, and the number of deleted objects, `files` included."""
        datasets: list[Dataset] = []
        for name in sorted({*self.holdings.specialists(), *self.app.specialists}):
            datasets += self._supersede(name, document_id, segment, current)
        files += self._delete_bytes(datasets)
        for dataset in datasets:
            self.holdings.drop_dataset(dataset)
        return tuple(sorted({dataset.digest for dataset in datasets})), files

    def _supersede(self, name: str, document_id: str, segment: int | None, current: str) -> list[Dataset]:
        """The specialist's datasets with rows of the document, after a new one was built if possible.

        Datasets that have the document's version with the digest `current` stay.
        """

        def supersede() -> list[Dataset]:
            datasets = self._find(name, document_id, segment, current)
            rebuilt = [
                self._rebuild(name, kind)
                for kind, digest in self.holdings.newest_digests(name).items()
                if digest in {dataset.digest for dataset in datasets}
            ]
            # A version with the same text gives the same dataset again, which is not an old one.
            kept = set(rebuilt) if current else set()
            return [dataset for dataset in datasets if dataset.digest not in kept]

        return run_exclusively(self.app, name, supersede)

    def _find(self, name: str, document_id: str, segment: int | None, current: str) -> list[Dataset]:
        """The datasets whose sources name the document; datasets share files, and each file is read once."""
        names: dict[str, bool] = {}
        digests: set[str] = set()
        for digest, key in self.holdings.source_files(name, segment):
            if key not in names:
                sources = self._read_sources(key)
                names[key] = document_id in sources and (not current or sources[document_id] != current)
            if names[key]:
                digests.add(digest)
        datasets = (self.holdings.dataset(name, digest) for digest in sorted(digests))
        return [dataset for dataset in datasets if dataset is not None]

    def _read_sources(self, key: str) -> dict[str, str]:
        """The documents of a sources file with the digests of their versions; none if an earlier attempt deleted it."""
        try:
            data = self.app.store.read(DATASETS, key)
        except NotFound:
            return {}
        ids, digests = (self.app.files.read_column(data, name) for name in ("document_id", "digest"))
        return dict(zip(ids, digests, strict=True))

    def _rebuild(self, name: str, kind: DatasetKind) -> str:
        """Build a new dataset if possible, and return its digest; empty if not."""
        specialist = self.app.specialists.get(name)
        if specialist is None:
            return ""
        try:
            return build(self.app, specialist, kind).dataset.digest
        except TailorError as error:
            if error.retryable:
                raise
            log.warning("erased dataset not superseded", specialist=name, kind=kind.value, reason=error.reason)
            return ""

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
