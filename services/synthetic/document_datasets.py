"""Datasets of documents: from the corpus's texts to both splits."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace

from services.synthetic.adapters.corpus import SqlCorpus
from services.synthetic.building.extras import HELD_OUT_PART, IMPORT, ExtraParts, Extras, index_extra
from services.synthetic.building.grams import GramSet, make_gram_set, measure_overlap
from services.synthetic.building.segments import Context, WrittenRows, write_rows
from services.synthetic.building.split import HeldOut, Splitter, boilerplate_documents
from services.synthetic.building.tally import RowTally
from services.synthetic.building.train import TrainRows
from services.synthetic.building.workers import peak_memory_mb, start_workers
from services.synthetic.corpus import ALL_SEGMENTS, NEAR_DUPLICATES, NOT_ADMITTED, UNREADABLE, StoredFile
from services.synthetic.datasets import PARQUET, file_of, write_manifest
from services.synthetic.domain import (
    BuildLimits,
    Dataset,
    LastBuild,
    OverRedaction,
    Specialist,
    fingerprint,
    is_text_id,
)
from services.synthetic.filters import filter_settings
from services.synthetic.parquet import read_column, read_table, write_ids
from services.synthetic.ports import ExtraRows, MeasureOverRedaction, TokenCounter, Workers
from services.synthetic.rows.templates import has_templates
from tailor.datasets import (
    HELD_OUT,
    TRAIN,
    DatasetFile,
    DatasetManifest,
    Figures,
    IdFiles,
    ImportCount,
    LanguageCount,
    SkippedCount,
    SplitFiles,
)
from tailor.errors import Aborted, FailedPrecondition, Reason
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore
from tailor.storage.ref import Ref
from tailor.values import DatasetKind

log = get_logger(__name__)

# Increase it whenever the same documents would give other rows.
BUILDER_VERSION = 14
# Chunks of held-out documents whose rows are in one file.
HELD_OUT_CHUNKS = 8
# Ids of documents in one message to the barrier.
ID_BATCH = 1_000

StartWorkers = Callable[[Context, int], AbstractContextManager[Workers]]


@dataclass(frozen=True)
class DocumentDatasets:
    """Makes datasets of documents."""

    store: ObjectStore
    limits: BuildLimits = field(default_factory=BuildLimits)
    extra_rows: Sequence[ExtraRows] = ()
    start_workers: StartWorkers = start_workers
    measure_over_redaction: MeasureOverRedaction = lambda document_ids: OverRedaction()

    def make_dataset(
        self,
        specialist: Specialist,
        corpus: SqlCorpus,
        counter: TokenCounter,
        last: LastBuild,
    ) -> tuple[Dataset, tuple[StoredFile, ...], str]:
        """Make and store the dataset, or return the last one if nothing that it depends on changed. Blocks.

        Returns it with its files and its fingerprint. Raises FailedPrecondition (TOO_FEW_ROWS, SOURCE_SHARE_UNREACHABLE).
        """
        start = time.monotonic()
        repeated = corpus.repeated_parts(specialist.filters.boilerplate_documents)
        context = Context(specialist, counter, frozenset(repeated))
        with self.start_workers(context, corpus.documents()) as workers:
            build = _Build(self, context, corpus, workers)
            build.splitter.assign()
            current = build.fingerprint()
            known = last.dataset if last.fingerprint == current else None
            if known is not None and UNREADABLE not in known.skipped:
                return known, (), current
            dataset, files = build.run(last)
            peak = peak_memory_mb()
        seconds = round(time.monotonic() - start, 1)
        log.info("rows made", specialist=specialist.name, seconds=seconds, peak_memory_mb=peak)
        return dataset, files, current


class _Build:
    """One build."""

    def __init__(self, parts: DocumentDatasets, context: Context, corpus: SqlCorpus, workers: Workers) -> None:
        self._parts = parts
        self._context = context
        self._corpus = corpus
        self._workers = workers
        self._specialist = context.specialist
        self._tally = RowTally()
        # Documents of files that do not belong to a segment.
        self._others: set[str] = set()
        # Texts among the sources that come from no document.
        self._texts = 0
        self._extras = Extras(parts.extra_rows, corpus, context)
        self._origins = [source.origin(context.specialist) for source in parts.extra_rows]
        self.splitter = Splitter(context, corpus, parts.store, workers)

    def inputs(self) -> str:
        """A digest of everything that the rows of all documents depend on."""
        policy, counter = self._specialist.rows, self._context.counter
        limits = (
            policy.max_row_tokens,
            policy.max_rows_per_document,
            policy.max_answer_percent,
            policy.min_answer_tokens,
        )
        tasks = (policy.tasks, policy.own_tasks)
        template = [counter.template_tokens(("", "a"), has_system=has_system) for has_system in (False, True)]
        base = (counter.digest, counter.context_tokens, *template)
        return fingerprint(BUILDER_VERSION, self._specialist.system_prompt, *limits, *tasks, *base)

    def fingerprint(self) -> str:
        """A digest of everything that the dataset depends on."""
        corpus, specialist = self._corpus, self._specialist
        settings = (asdict(specialist.rows), filter_settings(specialist.filters), asdict(self._parts.limits))
        documents = [corpus.held_out_digest(), *((key.number, key.digest) for key in corpus.segments())]
        extras = [source.fingerprint(specialist) for source in self._parts.extra_rows]
        counts = sorted((reason, asdict(count)) for reason, count in corpus.skipped().items())
        return fingerprint(self.inputs(), *settings, documents, extras, counts)

    def run(self, last: LastBuild) -> tuple[Dataset, tuple[StoredFile, ...]]:
        """Make both splits, then compare them, and write the manifest last."""
        extra = self._extras.count()
        held_out = self._make_held_out(extra)
        train = self._make_train(extra, make_gram_set(held_out.answers()))
        held_out.remove_shared(self._tally.shares, self._threshold)
        kept = self._write_held_out(held_out)
        _require_enough(self._tally, self._parts.limits, self._corpus.skipped().get(NOT_ADMITTED, SkippedCount()))
        sources = self._write_sources(train)
        for counts in (self._corpus.skipped(), extra.skipped, *held_out.skipped):
            self._tally.add_skipped(counts)
        near_duplicates = self._tally.skipped.pop(NEAR_DUPLICATES, SkippedCount())
        figures = self._figures(held_out, kept, sources, near_duplicates)
        splits = {TRAIN: _files_with_rows(train), HELD_OUT: _files_with_rows(kept)}
        content = self._manifest(splits, [stored.file for stored in sources], figures, held_out)
        digest, manifest = write_manifest(
            self._parts.store,
            last.dataset,
            content,
            ("kind", "splits", "sources", "imports"),
        )
        dataset = self._dataset(digest, manifest, figures, sources, near_duplicates.documents)
        segments = tuple(stored for stored in train if not stored.is_sources)
        return dataset, (*segments, *kept, *sources)

    @property
    def _threshold(self) -> int:
        return boilerplate_documents(self._specialist.filters)

    def _make_held_out(self, extra: ExtraParts) -> HeldOut:
        held_out, limit = HeldOut(), self._specialist.rows.max_held_out_rows
        room = limit - min(len(extra.held_out), limit // HELD_OUT_PART)
        for made in self.splitter.make_rows(self._corpus.held_out()):
            held_out.add(made, room)
        if extra.held_out:
            held_out.add(index_extra(extra.held_out), limit)
        return held_out

    def _make_train(self, extra: ExtraParts, grams: GramSet) -> tuple[StoredFile, ...]:
        policy, store = self._specialist.rows, self._parts.store
        share = policy.replay_percent
        train = TrainRows(self._context, self._corpus, store, self._workers, grams, self.inputs())
        # Rows that people accepted or imported come first in the budget.
        budget = max(1, policy.max_train_tokens * (100 - share) // 100 - extra.train_tokens)
        results = train.build(budget if policy.max_train_tokens else 0)
        for result in results:
            self._tally.add_segment(result)
        rows = self._tally.splits[TRAIN].rows + extra.train
        replay = rows * share // (100 - share) if share else 0
        stored = [stored for result in results for stored in result.files]
        for written in self._extras.files(extra, replay, grams, self._workers, self._tally.add_unfit):
            stored.append(self._store(TRAIN, written))
        return tuple(stored)

    def _write_held_out(self, held_out: HeldOut) -> tuple[StoredFile, ...]:
        files = []
        for start in range(0, len(held_out.chunks), HELD_OUT_CHUNKS):
            end = start + HELD_OUT_CHUNKS
            data = [table for made in held_out.chunks[start:end] for table in made.tables]
            kept = [is_kept for mask in held_out.kept[start:end] for is_kept in mask.tolist()]
            written = self._workers.submit(write_rows, data, kept, None)()
            if written.counts.rows:
                files.append(self._store(HELD_OUT, written))
        return tuple(files)

    def _store(self, split: str, written: WrittenRows) -> StoredFile:
        self._tally.add_file(split, written)
        self._others.update(written.document_ids)
        return StoredFile(self._put(written.data, written.counts.rows), ALL_SEGMENTS)

    def _put(self, data: bytes, rows: int) -> DatasetFile:
        file = file_of(data, rows)
        self._corpus.record_files([file.ref.key])
        self._parts.store.put(DATASETS, file.ref.key, data, PARQUET)
        return file

    def _write_sources(self, train: Sequence[StoredFile]) -> tuple[StoredFile, ...]:
        """The sources of the segments, and one more file with the documents that occur in none of them."""
        known = tuple(stored for stored in train if stored.is_sources)
        segments = set(self._corpus.segment_of(sorted(self._others)).values())
        for stored in known:
            if stored.segment in segments:
                data = self._parts.store.get(stored.file.ref)
                self._others.difference_update(read_column(data, "document_id"))
        # Texts that come from no document have no version.
        digests = dict.fromkeys(filter(is_text_id, self._others), "") | self._corpus.sources(sorted(self._others))
        self._texts = sum(map(is_text_id, digests))
        ids = sorted(digests)
        if not ids:
            return known
        data = write_ids({"document_id": ids, "digest": [digests[key] for key in ids]})
        return (*known, StoredFile(self._put(data, len(ids)), ALL_SEGMENTS, is_sources=True))

    def _figures(
        self,
        held_out: HeldOut,
        kept: Sequence[StoredFile],
        sources: Sequence[StoredFile],
        near_duplicates: SkippedCount,
    ) -> Figures:
        """The measures. The overlap is measured in what was stored."""
        tables = [read_table(self._parts.store.get(stored.file.ref)) for stored in kept]
        # A near-duplicate is taught by the document that represents it.
        letters = self._corpus.letters() + near_duplicates.characters
        taught = self._tally.letters + held_out.letters + near_duplicates.characters
        overlap = measure_overlap(tables, self._tally.shares, self._threshold)
        coverage = taught / letters if letters else 0.0
        replaced = self._parts.measure_over_redaction(self._document_ids(sources))
        return Figures(coverage, self._tally.grounded, overlap, letters, replaced.per_thousand_words, replaced.limit)

    def _document_ids(self, sources: Sequence[StoredFile]) -> Iterator[Sequence[str]]:
        """The documents that rows come from, in batches."""
        for stored in sources:
            ids = read_column(self._parts.store.get(stored.file.ref), "document_id")
            documents = [key for key in ids if not is_text_id(key)]
            for start in range(0, len(documents), ID_BATCH):
                yield documents[start : start + ID_BATCH]

    def _manifest(
        self,
        splits: Mapping[str, tuple[DatasetFile, ...]],
        sources: Sequence[DatasetFile],
        figures: Figures,
        held_out: HeldOut,
    ) -> dict[str, object]:
        tally, specialist, counts = self._tally, self._specialist, self._tally.all
        manifest = DatasetManifest(
            kind=DatasetKind.SFT,
            specialist=specialist.name,
            splits={
                name: SplitFiles(tally.splits[name].rows, tally.splits[name].tokens, files)
                for name, files in splits.items()
            },
            sources=IdFiles(sum(file.rows for file in sources), tuple(sources)),
            figures=figures,
            skipped=tally.skipped,
            teacher_tokens=sum(origin.teacher_tokens for origin in self._origins),
            imports=self._count_imports(),
            languages={
                tag: LanguageCount(rows, counts.documents.get(tag, 0), has_templates(tag))
                for tag, rows in sorted(counts.languages.items())
            },
        )
        more = {
            "tasks": dict(counts.tasks),
            "grounding": dict(counts.grounding),
            "boilerplate_rows": held_out.boilerplate_rows,
        }
        return manifest.as_json() | {
            "figures": asdict(figures) | more,
            "builder": {
                "version": BUILDER_VERSION,
                "tokenizer": self._context.counter.digest,
                **asdict(self._parts.limits),
            },
            "rows": asdict(specialist.rows),
            "filters": filter_settings(specialist.filters),
        }

    def _count_imports(self) -> tuple[ImportCount, ...]:
        """The imports with rows in the dataset. Raises Aborted if one of them was added during the build."""
        terms = {entry.name: entry for origin in self._origins for entry in origin.imports}
        makers = self._tally.all.makers
        rows = {name.removeprefix(IMPORT): count for name, count in makers.items() if name.startswith(IMPORT)}
        if rows.keys() - terms.keys():
            raise Aborted(Reason.ABORTED, "An import was added during the build. Retry.")
        return tuple(replace(terms[name], rows=rows[name]) for name in sorted(rows))

    def _dataset(
        self, digest: str, manifest: Ref, figures: Figures, sources: Sequence[StoredFile], near_duplicates: int
    ) -> Dataset:
        tally, specialist = self._tally, self._specialist
        return Dataset(
            digest=digest,
            specialist=specialist.name,
            base=specialist.base,
            pipeline=specialist.pipeline,
            manifest=manifest,
            train_rows=tally.splits[TRAIN].rows,
            held_out_rows=tally.splits[HELD_OUT].rows,
            documents=sum(stored.file.rows for stored in sources) - self._texts,
            near_duplicates=near_duplicates,
            figures=figures,
            skipped=tally.skipped,
            intake_seconds=self._corpus.intake_seconds(),
            draft_adapters=self._draft_adapters(),
        )

    def _draft_adapters(self) -> tuple[str, ...]:
        """Read after the rows, so that those of all rows are among them."""
        origins = (source.origin(self._specialist) for source in self._parts.extra_rows)
        return tuple(sorted({adapter for origin in origins for adapter in origin.draft_adapters}))


def _files_with_rows(stored: Sequence[StoredFile]) -> tuple[DatasetFile, ...]:
    return tuple(entry.file for entry in stored if not entry.is_sources)


def _require_enough(tally: RowTally, limits: BuildLimits, waiting: SkippedCount) -> None:
    train, held_out = tally.splits[TRAIN].rows, tally.splits[HELD_OUT].rows
    if train < limits.min_train_rows or held_out < limits.min_held_out_rows:
        waits = f"{waiting.documents} documents wait until `tailor specialist admit NAME` admits where they come from. "
        raise FailedPrecondition(
            Reason.TOO_FEW_ROWS,
            f"The documents give {train} train rows and {held_out} held-out rows; "
            f"at least {limits.min_train_rows} and {limits.min_held_out_rows} are needed. {waits if waiting.documents else ''}"
            "Publish more documents.",
        )
