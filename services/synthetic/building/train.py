"""The train rows: segment by segment, reusing the segments whose inputs did not change since the last build."""

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy

from services.synthetic.building.grams import Counts, GramSet, pack_counts
from services.synthetic.building.limits import (
    BUDGET,
    DOCUMENT_SHARE,
    MAX_PERCENT,
    SOURCE_SHARE,
    Mask,
    SeenAnswers,
    limit_documents,
    limit_sources,
    limit_tokens,
)
from services.synthetic.building.parts import SegmentJob, SegmentJobs, SegmentRows, part_of, read_raw, write_raw
from services.synthetic.building.ports import SegmentStore, Workers
from services.synthetic.building.reading import READERS
from services.synthetic.building.segments import (
    Context,
    RawSegment,
    WrittenRows,
    compare_segment,
    count_letters,
    write_segment,
)
from services.synthetic.building.split import count_removed, count_repeated
from services.synthetic.corpus import UNREADABLE, ExtraCount, SegmentKey, SegmentResult
from services.synthetic.datasets import PARQUET, file_of
from services.synthetic.domain import fingerprint
from services.synthetic.parquet import write_ids
from tailor.datasets import DatasetFile, SkippedCount
from tailor.errors import CorruptObject, NotFound
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

MAX_AHEAD = 3
# A document whose share of the characters is this many times below a limit on tokens does not reach it: rows per character differ less.
LARGE_FACTOR = 4
# Increase it whenever stored segments cannot be reused.
SEGMENT_VERSION = 5


@dataclass(frozen=True)
class RowChoice:
    """The rows of a segment that are kept; those whose answers are taught, here or by an equal row; those whose answers are new here."""

    mask: Mask
    taught: Mask
    first: Mask
    skipped: Mapping[str, SkippedCount] = field(default_factory=dict)


@dataclass
class TrainRows:
    """Stores the train rows of a build's documents, and their closed-book questions. `inputs` is a digest of what all segments depend
    on."""

    context: Context
    corpus: SegmentStore
    store: ObjectStore
    workers: Workers
    held_out: GramSet
    inputs: str
    closed_book_below: int = 0
    seen: SeenAnswers = field(default_factory=SeenAnswers)

    def build(self, max_tokens: int) -> list[SegmentResult]:
        """All segments with train documents, by number. Blocks."""
        keys = self.corpus.segments()
        self._delete(self.corpus.forget_segments([key.number for key in keys]))
        if max_tokens or self.context.specialist.filters.max_source_percent or self._has_large_document():
            return self._build_limited(keys, max_tokens)
        return list(self._build_all(keys))

    def _has_large_document(self) -> bool:
        """True if a document could have more than its share of the tokens, going by its characters."""
        largest, letters = self.corpus.train_letters()
        return LARGE_FACTOR * largest * MAX_PERCENT > self.context.specialist.rows.max_document_percent * letters > 0

    @cached_property
    def _jobs(self) -> SegmentJobs:
        inputs = fingerprint(SEGMENT_VERSION, self.inputs)
        return SegmentJobs(self.corpus, self.store, self.workers, inputs, self.closed_book_below)

    def _build_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentResult]:
        """Every row: a segment is written as soon as its rows are made. New documents come to the last one."""
        stored = self._find_reusable(keys)
        ahead = deque(key for key in keys if key.number not in stored)
        jobs: deque[SegmentJob] = deque()
        writing: deque[Callable[[], SegmentResult]] = deque()
        for key in keys:
            while ahead and len(jobs) < MAX_AHEAD:
                following = ahead.popleft()
                jobs.append(self._jobs.start(following, grows=following is keys[-1]))
            is_last = key is keys[-1]
            writing.append(self._find_or_make(key, is_last) if key.number in stored else self._write(jobs.popleft()))
            while len(writing) >= MAX_AHEAD:
                yield _without_answers(writing.popleft()())
        while writing:
            yield _without_answers(writing.popleft()())

    def _build_limited(self, keys: Sequence[SegmentKey], max_tokens: int) -> list[SegmentResult]:
        """Rows within limits that concern all segments: the rows wait on disk until all are made."""
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder:
            sources: dict[str, str] = {}
            raws = [self._spill(job, Path(folder), sources) for job in self._make_all(keys)]
            steps = self._choose(raws, sources, max_tokens)
            results = []
            for key, step in zip(keys, steps, strict=True):
                raw = read_raw((Path(folder) / str(key.number)).read_bytes())
                full = replace(raw, skipped={**raw.skipped, **step.skipped})
                digests = {
                    member.document.document_id: member.document.digest for member in self.corpus.members(key.number)
                }
                results.append(self._submit(SegmentRows(key, digests, full, {}), step)())
            return results

    def _make_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentJob]:
        jobs: deque[SegmentJob] = deque()
        for key in keys:
            jobs.append(self._jobs.start(key))
            if len(jobs) >= MAX_AHEAD:
                yield jobs.popleft()
        while jobs:
            yield jobs.popleft()

    def _spill(self, job: SegmentJob, folder: Path, sources: dict[str, str]) -> RawSegment:
        sources.update((member.document.document_id, member.document.labels.source) for member in job.members)
        raw = job.result().raw
        (folder / str(job.key.number)).write_bytes(write_raw(raw))
        return replace(raw, tables=(), closed_book=())

    def _choose(self, raws: Sequence[RawSegment], sources: dict[str, str], max_tokens: int) -> list["RowChoice"]:
        """What the limits keep of each segment."""
        specialist = self.context.specialist
        steps = [[self.seen.add(raw.answers) for raw in raws]]
        limits: dict[str, Callable[[list[Mask]], None]] = {
            DOCUMENT_SHARE: lambda kept: limit_documents(raws, kept, specialist.rows.max_document_percent),
            SOURCE_SHARE: lambda kept: limit_sources(
                raws, kept, sources.__getitem__, specialist.filters.max_source_percent
            ),
            BUDGET: lambda kept: limit_tokens(raws, kept, max_tokens),
        }
        # A smaller whole makes each share larger, so the shares are limited again after the budget.
        reasons = (DOCUMENT_SHARE, SOURCE_SHARE, BUDGET, DOCUMENT_SHARE, SOURCE_SHARE)
        for limit in map(limits.__getitem__, reasons):
            steps.append([mask.copy() for mask in steps[-1]])
            limit(steps[-1])
        masks = [_mark_taught(raws, step) for step in steps]
        return [
            RowChoice(
                steps[-1][number],
                masks[-1][number],
                steps[0][number],
                _count_dropped(raw, reasons, [step[number] for step in masks]),
            )
            for number, raw in enumerate(raws)
        ]

    def _find_reusable(self, keys: Sequence[SegmentKey]) -> set[int]:
        """The numbers of stored segments with equal inputs."""
        stored = self.corpus.stored_segments()
        return {key.number for key in keys if stored.get(key.number) == self._inputs(key)}

    def _is_whole(self, segment: SegmentResult) -> bool:
        """True if every document of the segment could be read, its files exist, and those that a build reads are not damaged."""
        if UNREADABLE in segment.skipped:
            return False
        read = [file.ref for file in (segment.sources, segment.grams) if file is not None]
        try:
            with ThreadPoolExecutor(READERS) as pool:
                deque(pool.map(self.store.get, read), maxlen=0)
                return all(pool.map(lambda key: self.store.exists(DATASETS, key), segment.keys))
        except (NotFound, CorruptObject) as error:
            log.warning("segment made again", segment=segment.number, reason=error.reason.value, **error.metadata)
            return False

    def _inputs(self, key: SegmentKey) -> str:
        return fingerprint(SEGMENT_VERSION, self.inputs, key.number, key.digest)

    def _find_or_make(self, key: SegmentKey, is_last: bool) -> Callable[[], SegmentResult]:
        """A stored segment; an erasure may have dropped it in the meantime, and its files may be damaged."""
        stored = self.corpus.segment_result(key.number)
        if stored is None or not self._is_whole(stored):
            return self._write(self._jobs.start(key, grows=is_last))
        if stored.parts and not is_last:
            stored = replace(stored, parts=())
            self._delete(self.corpus.keep_segment(stored))
        return self._reuse(key, stored, is_last)

    def _reuse(self, key: SegmentKey, stored: SegmentResult, is_last: bool) -> Callable[[], SegmentResult]:
        """The stored rows, unless other rows would be kept now. They are compared again if the held-out answers changed."""
        first, new = self.seen.find(numpy.frombuffer(stored.answers, "<u8"))
        if mask_digest(keep_all(first).mask) != stored.kept:
            # The rows are chosen from those that are made now: an erasure may have taken a text that the stored ones had.
            return self._write(self._jobs.start(key, grows=is_last))
        self.seen.keep(new)
        if stored.checked == self.held_out.digest or stored.grams is None:
            return lambda: stored
        shares = self.workers.submit(compare_segment, self.store.get(stored.grams.ref), self.held_out)
        return lambda: self._update_shares(stored, shares())

    def _update_shares(self, stored: SegmentResult, shares: Counts) -> SegmentResult:
        result = replace(stored, checked=self.held_out.digest, shares=pack_counts(shares))
        self._delete(self.corpus.keep_segment(result))
        return result

    def _write(self, job: SegmentJob) -> Callable[[], SegmentResult]:
        rows = job.result()
        return self._submit(rows, keep_all(self.seen.add(rows.raw.answers)))

    def _submit(self, rows: SegmentRows, kept: RowChoice) -> Callable[[], SegmentResult]:
        raw = rows.raw
        written = self.workers.submit(write_segment, raw, kept.mask.tolist(), self.held_out, self.closed_book_below)
        raw = replace(raw, tables=(), closed_book=(), skipped={**raw.skipped, **count_repeated(raw, kept.first)})
        rest = replace(rows, raw=raw)
        return lambda: self._store(rest, kept, written())

    def _store(self, segment: SegmentRows, kept: RowChoice, rows: WrittenRows) -> SegmentResult:
        """Record the files before they are written, so that none is ever without a record."""
        key, raw, ids = segment.key, segment.raw, rows.document_ids
        files = self._files(rows, [segment.digests[name] for name in ids]) if ids else {}
        parts = [(part_of(inputs, data), data) for inputs, data in segment.parts.items()]
        closed_book = (
            rows.closed_book.with_file(files["closed_book"][0]) if "closed_book" in files else rows.closed_book.counts
        )
        named = {name: file for name, (file, _) in files.items()}
        result = SegmentResult(
            number=key.number,
            inputs=self._inputs(key),
            kept=mask_digest(kept.mask),
            checked=self.held_out.digest,
            train=named.get("train"),
            sources=named.get("sources"),
            grams=named.get("grams"),
            tokens=rows.tokens,
            letters=count_letters(raw.places, kept.taught),
            tasks=dict(rows.tasks),
            grounding=dict(rows.grounding),
            languages=dict(rows.languages),
            documents=dict(rows.documents),
            skipped=dict(raw.skipped),
            answers=raw.answers.astype("<u8").tobytes(),
            shares=pack_counts(rows.shares),
            closed_book=closed_book,
            extra=_count_extra(raw, kept.mask),
            parts=tuple(part for part, _ in parts),
        )
        obsolete = self.corpus.keep_segment(result)
        for file, data in files.values():
            self.store.put(DATASETS, file.ref.key, data, PARQUET)
        for part, data in parts:
            self.store.put(DATASETS, part.ref.key, data)
        self._delete(obsolete)
        log.info("segment built", segment=key.number, documents=key.documents, rows=rows.rows)
        return result

    def _files(self, rows: WrittenRows, digests: Sequence[str]) -> dict[str, tuple[DatasetFile, bytes]]:
        """The files of a segment with their bytes."""
        sources = write_ids({"document_id": rows.document_ids, "digest": digests})
        count = len(digests)
        closed_book = (
            {"closed_book": (file_of(rows.closed_book.data, rows.closed_book.counts.rows), rows.closed_book.data)}
            if rows.closed_book.data
            else {}
        )
        return {
            "train": (file_of(rows.data, rows.rows), rows.data),
            "sources": (file_of(sources, count), sources),
            "grams": (file_of(rows.grams, count), rows.grams),
            **closed_book,
        }

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.store.delete(DATASETS, key)


def _without_answers(result: SegmentResult) -> SegmentResult:
    """The answers of all segments together take 300 bytes per document."""
    return replace(result, answers=b"")


def mask_digest(mask: Mask) -> str:
    return fingerprint(numpy.packbits(mask).tobytes().hex(), len(mask))


def keep_all(first: Mask) -> RowChoice:
    """Keep every row whose answer is the first of its kind; the others are taught by that one."""
    return RowChoice(first, numpy.ones(len(first), numpy.bool_), first)


def _count_extra(raw: RawSegment, kept: Mask) -> ExtraCount:
    """The kept rows that missed documents got in addition."""
    chosen = raw.is_extra & kept
    return ExtraCount(len(set(raw.documents[chosen].tolist())), int(chosen.sum()))


def _mark_taught(raws: Sequence[RawSegment], kept: Sequence[Mask]) -> list[Mask]:
    """For each row, whether it or a row with an equal answer is kept."""
    parts = [raw.answers[mask] for raw, mask in zip(raws, kept, strict=True)]
    answers = numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)
    pairs = zip(raws, kept, strict=True)
    return [mask | (numpy.isin(raw.answers, answers) & (raw.answers != 0)) for raw, mask in pairs]


def _count_dropped(raw: RawSegment, reasons: Sequence[str], steps: Sequence[Mask]) -> dict[str, SkippedCount]:
    """Counts of the rows that the limits remove, one after another."""
    counts: dict[str, SkippedCount] = {}
    for reason, pair in zip(reasons, itertools.pairwise(steps), strict=True):
        counts[reason] = counts.get(reason, SkippedCount()) + count_removed(raw, *pair)
    return {reason: count for reason, count in counts.items() if count.rows}
