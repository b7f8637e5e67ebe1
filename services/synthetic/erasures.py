"""Erases documents, and the datasets with their rows, which a new dataset supersedes.

A replay supersedes documents by the thousand. A new dataset for each would start as many runs, so they are remembered and handled
together once no further one arrives.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from services.synthetic.adapters.datasets import SqlDatasets
from services.synthetic.adapters.erasures import SqlHoldings
from services.synthetic.corpus import ALL_SEGMENTS
from services.synthetic.domain import Dataset, SupersededVersion, SupersedeWaits, is_text_id
from services.synthetic.handlers import Synthetic, build, run_exclusively
from services.synthetic.parquet import read_column
from services.synthetic.preference_datasets import delete_drawn_text, saved_key
from tailor.errors import NotFound, TailorError
from tailor.events.erased import Erased, Forgotten
from tailor.jobs import HeldJob
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.values import DatasetKind

log = get_logger(__name__)

# Versions that are handled together.
MAX_VERSIONS = 50_000
DEFAULT_WAITS = SupersedeWaits()

# Confirms that a version is forgotten. Blocks until the broker has it.
Confirm = Callable[[Erased, Forgotten], None]

# The digests of the versions that datasets may keep, by document; "" if they may keep none.
Current = Mapping[str, str]


@dataclass(frozen=True)
class DatasetEraser:
    """Erases documents, and texts that come from none, from synthetic's database and bucket."""

    app: Synthetic
    holdings: SqlHoldings
    datasets: SqlDatasets
    forget_import_row: Callable[[str], int]

    def forget(self, erased: Erased) -> Forgotten:
        """Drop the document or text, rebuild the datasets with its rows without it, then delete the old bytes. Idempotent.

        The same happens to the drafts of retired adapters and to the datasets with pairs of them. Those are not among the datasets of the
        answer, because they have no rows of the document.
        """
        document_id = erased.document_id
        is_text = is_text_id(document_id)
        rows = self.forget_import_row(document_id) if is_text else 0
        segment = ALL_SEGMENTS if is_text else self.holdings.segment_of(document_id)
        entries, keys = self.holdings.forget_document(document_id)
        drafts, texts = self.holdings.forget_drafts(erased.retired, document_id if is_text else "")
        drawn, drawn_objects = self.forget_drawn(document_id)
        files = self.delete([*keys, *texts]) + drawn_objects
        ranked, ranked_objects = self._replace_ranked(erased.retired)
        digests, objects = self.replace_datasets({document_id: ""}, None if segment is None else {segment})
        named = tuple(sorted(digests[document_id]))
        counts = {
            "documents": entries,
            "imported_rows": rows,
            "drafts": drafts + drawn,
            "datasets": len(named),
            "ranked_datasets": len(ranked - {*named}),
            "objects": files + ranked_objects + objects,
        }
        return Forgotten(counts, named)

    def forget_drawn(self, document_id: str) -> tuple[int, int]:
        """Delete the drafts whose prompts were drawn from a document, with their texts; returns the numbers of drafts and objects."""
        drafts, digests = self.holdings.forget_drawn(document_id)
        objects = self.delete([saved_key(digest) for digest in digests])
        for digest in digests:
            objects += delete_drawn_text(self.app.store, digest)
        return drafts, objects

    def _replace_ranked(self, adapters: Sequence[str]) -> tuple[set[str], int]:
        """Rebuild and delete the datasets with pairs of the adapters' drafts. Returns their digests and the number of deleted objects."""
        datasets: list[Dataset] = []
        for name in sorted({*self.datasets.specialists(), *self.app.specialists}) if adapters else ():
            datasets += run_exclusively(self.app, name, partial(self._supersede_ranked, name, adapters))
        objects = self._delete_bytes(datasets)
        for dataset in datasets:
            self.datasets.drop_dataset(dataset)
        return {dataset.digest for dataset in datasets}, objects

    def _supersede_ranked(self, name: str, adapters: Sequence[str]) -> list[Dataset]:
        known = self.datasets.all(specialist=name, order=self.datasets.c.digest)
        datasets = [dataset for dataset in known if not {*adapters}.isdisjoint(dataset.draft_adapters)]
        for kind, digest in self.datasets.newest_digests(name).items():
            if digest in {dataset.digest for dataset in datasets}:
                self._rebuild(name, kind)
        return datasets

    def replace_datasets(self, current: Current, segments: Collection[int] | None) -> tuple[dict[str, set[str]], int]:
        """Rebuild and delete every dataset that has a version other than the current one of a document.

        Returns the digests of the deleted datasets by document, and the number of deleted objects. Blocks. Idempotent.
        """
        named: dict[str, set[str]] = {document_id: set() for document_id in current}
        datasets: list[Dataset] = []
        for name in sorted({*self.datasets.specialists(), *self.app.specialists}):
            datasets += self._replace(name, current, segments, named)
        objects = self._delete_bytes(datasets)
        for dataset in datasets:
            self.datasets.drop_dataset(dataset)
        deleted = {dataset.digest for dataset in datasets}
        return {document_id: digests & deleted for document_id, digests in named.items()}, objects

    def _replace(
        self, name: str, current: Current, segments: Collection[int] | None, named: dict[str, set[str]]
    ) -> list[Dataset]:
        """The specialist's datasets with an old version, after a new one was built if possible. Adds them to `named`."""

        def replace() -> list[Dataset]:
            datasets = self._find(name, current, segments, named)
            rebuilt = {
                self._rebuild(name, kind)
                for kind, digest in self.datasets.newest_digests(name).items()
                if digest in {dataset.digest for dataset in datasets}
            }
            # If nothing else changed, a version that stays gives the same dataset again.
            kept = rebuilt if any(current.values()) else set()
            return [dataset for dataset in datasets if dataset.digest not in kept]

        return run_exclusively(self.app, name, replace)

    def _find(
        self, name: str, current: Current, segments: Collection[int] | None, named: dict[str, set[str]]
    ) -> list[Dataset]:
        """The datasets whose sources name an old version; datasets share files, and each file is read once."""
        old: dict[str, frozenset[str]] = {}
        digests: set[str] = set()
        for digest, key in self.datasets.source_files(name, segments):
            if key not in old:
                old[key] = self._old_documents(key, current)
            for document_id in old[key]:
                named[document_id].add(digest)
                digests.add(digest)
        return self.datasets.all(specialist=name, digest=digests, order=self.datasets.c.digest)

    def _old_documents(self, key: str, current: Current) -> frozenset[str]:
        """The documents of which a sources file has another version than the current one."""
        sources = self._read_sources(key)
        return frozenset(
            document_id
            for document_id in current.keys() & sources.keys()
            if not current[document_id] or sources[document_id] != current[document_id]
        )

    def _read_sources(self, key: str) -> dict[str, str]:
        """The documents of a sources file with the digests of their versions; none if an earlier attempt deleted it."""
        try:
            data = self.app.store.read(DATASETS, key)
        except NotFound:
            return {}
        ids, digests = (read_column(data, name) for name in ("document_id", "digest"))
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
        return self.delete([*self.datasets.unshared_files(digests), *(f"{key}/manifest.json" for key in digests)])

    def delete(self, keys: Sequence[str]) -> int:
        """Delete objects of the bucket; returns the number of those that existed."""
        objects = [key for key in keys if self.app.store.exists(DATASETS, key)]
        for key in objects:
            self.app.store.delete(DATASETS, key)
        return len(objects)


@dataclass(frozen=True)
class DatasetSuperseder:
    """Remembers superseded versions, and replaces the datasets with them in batches."""

    eraser: DatasetEraser
    confirm: Confirm
    waits: SupersedeWaits = DEFAULT_WAITS

    def remember(self, superseded: Erased) -> None:
        """Drop what was derived from the earlier versions of a document but datasets, which follow in a batch. Idempotent.

        If the new version has not arrived yet, the document is dropped until it does.
        """
        holdings, document_id = self.eraser.holdings, superseded.document_id
        segment, held = holdings.segment_of(document_id), holdings.held_versions([document_id]).get(document_id)
        version = SupersededVersion(document_id, superseded.erasure_id, superseded.sequence, segment)
        # First, because the segment is not known any more afterwards.
        holdings.keep_superseded(version)
        if held is not None and held[0] < superseded.sequence:
            _, keys = holdings.forget_document(document_id)
        else:
            keys = holdings.forget_derived(document_id)
        self.eraser.delete(keys)
        self.eraser.forget_drawn(document_id)

    def run(self, job: HeldJob) -> float | None:
        """Replace the datasets with remembered versions and confirm these, once they are due (a `jobs.Handle`). Blocks."""
        ages = self.eraser.holdings.superseded_ages()
        if ages is None:
            return None
        oldest, newest = ages
        seconds = min(self.waits.max_seconds - oldest, self.waits.quiet_seconds - newest)
        if seconds <= 0:
            self._replace(job, self.eraser.holdings.superseded(MAX_VERSIONS))
        return max(0.0, seconds)

    def _replace(self, job: HeldJob, versions: Sequence[SupersededVersion]) -> None:
        """Replace the datasets, then confirm and forget each version; a killed process does all of it again."""
        held = self.eraser.holdings.held_versions([version.document_id for version in versions])
        current = {
            version.document_id: held[version.document_id][1] if version.document_id in held else ""
            for version in versions
        }
        known = {version.segment for version in versions if version.segment is not None}
        segments = known if len(known) == len({version.segment for version in versions}) else None
        digests, objects = self.eraser.replace_datasets(current, segments)
        log.info("datasets superseded", versions=len(versions), datasets=len(set().union(*digests.values())))
        for version in versions:
            named = tuple(sorted(digests[version.document_id]))
            counts = {"datasets": len(named), "objects": objects}
            # The objects belong to all versions together, and are counted once.
            objects = 0
            superseded = Erased(version.document_id, version.erasure_id, sequence=version.sequence)
            self.confirm(superseded, Forgotten(counts, named))
        self.eraser.holdings.drop_superseded(job, versions)
