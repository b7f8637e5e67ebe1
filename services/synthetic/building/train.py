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

from services.synthetic.adapters.corpus import SqlCorpus
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
from services.synthetic.building.segment_parts import SegmentMaker, SegmentRows, decode_rows, encode_rows, part_of
from services.synthetic.building.segments import (
    READERS,
    Context,
    MadeRows,
    WrittenRows,
    compare_segment,
    count_letters,
    write_rows,
)
from services.synthetic.building.split import count_removed, count_repeated
from services.synthetic.corpus import UNREADABLE, Member, SegmentKey, SegmentResult
from services.synthetic.datasets import PARQUET, file_of
from services.synthetic.domain import fingerprint
from services.synthetic.parquet import write_ids
from services.synthetic.ports import Workers
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
SEGMENT_VERSION = 6


@dataclass(frozen=True)
class RowChoice:
    """The rows of a segment that are kept; those whose answers are taught, here or by an equal row; those whose answers are new here."""

    mask: Mask
    taught: Mask
    first: Mask
    skipped: Mapping[str, SkippedCount] = field(default_factory=dict)


@dataclass
class TrainRows:
    """Stores the train rows of a build's documents. `inputs` is a digest of what all segments depend on."""

    context: Context
    corpus: SqlCorpus
    store: ObjectStore
    workers: Workers
    held_out: GramSet
    inputs: str
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
    def _maker(self) -> SegmentMaker:
        inputs = fingerprint(SEGMENT_VERSION, self.inputs)
        return SegmentMaker(self.corpus, self.store, self.workers, inputs)

    def _build_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentResult]:
        """Every row: a segment is written as soon as its rows are made. New documents come to the last one."""
        stored = self._find_reusable(keys)
        ahead = deque(key for key in keys if key.number not in stored)
        making: deque[Callable[[], SegmentRows]] = deque()
        writing: deque[Callable[[], SegmentResult]] = deque()
        for key in keys:
            while ahead and len(making) < MAX_AHEAD:
                following = ahead.popleft()
                making.append(self._maker.start(following, grows=following is keys[-1]))
            is_last = key is keys[-1]
            writing.append(self._find_or_make(key, is_last) if key.number in stored else self._write(making.popleft()))
            while len(writing) >= MAX_AHEAD:
                yield _without_answers(writing.popleft()())
        while writing:
            yield _without_answers(writing.popleft()())

    def _build_limited(self, keys: Sequence[SegmentKey], max_tokens: int) -> list[SegmentResult]:
        """Rows within limits that concern all segments: the rows wait on disk until all are made."""
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder:
            sources: dict[str, str] = {}
            segments = [self._spill(rows, Path(folder), sources) for rows in self._make_all(keys)]
            results = []
            for key, choice in zip(keys, self._choose(segments, sources, max_tokens), strict=True):
                made = decode_rows((Path(folder) / str(key.number)).read_bytes())
                full = replace(made, skipped={**made.skipped, **choice.skipped})
                results.append(self._submit(SegmentRows(key, self.corpus.members(key.number), full, {}), choice)())
            return results

    def _make_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentRows]:
        making: deque[Callable[[], SegmentRows]] = deque()
        for key in keys:
            making.append(self._maker.start(key))
            if len(making) >= MAX_AHEAD:
                yield making.popleft()()
        while making:
            yield making.popleft()()

    @staticmethod
    def _spill(rows: SegmentRows, folder: Path, sources: dict[str, str]) -> MadeRows:
        sources.update((member.document.document_id, member.document.labels.source) for member in rows.members)
        (folder / str(rows.key.number)).write_bytes(encode_rows(rows.made))
        return replace(rows.made, tables=())

    def _choose(self, segments: Sequence[MadeRows], sources: dict[str, str], max_tokens: int) -> list["RowChoice"]:
        """What the limits keep of each segment."""
        specialist = self.context.specialist
        steps = [[self.seen.add(made.index["answer"]) for made in segments]]
        limits: dict[str, Callable[[list[Mask]], None]] = {
            DOCUMENT_SHARE: lambda kept: limit_documents(segments, kept, specialist.rows.max_document_percent),
            SOURCE_SHARE: lambda kept: limit_sources(
                segments, kept, sources.__getitem__, specialist.filters.max_source_percent
            ),
            BUDGET: lambda kept: limit_tokens(segments, kept, max_tokens),
        }
        # A smaller whole makes each share larger, so the shares are limited again after the budget.
        reasons = (DOCUMENT_SHARE, SOURCE_SHARE, BUDGET, DOCUMENT_SHARE, SOURCE_SHARE)
        for limit in map(limits.__getitem__, reasons):
            steps.append([mask.copy() for mask in steps[-1]])
            limit(steps[-1])
        taught = [_mark_taught(segments, step) for step in steps]
        return [
            RowChoice(
                steps[-1][number],
                taught[-1][number],
                steps[0][number],
                _count_dropped(made, reasons, [step[number] for step in taught]),
            )
            for number, made in enumerate(segments)
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
            return self._write(self._maker.start(key, grows=is_last))
        if stored.parts and not is_last:
            stored = replace(stored, parts=())
            self._delete(self.corpus.keep_segment(stored))
        return self._reuse(key, stored, is_last)

    def _reuse(self, key: SegmentKey, stored: SegmentResult, is_last: bool) -> Callable[[], SegmentResult]:
        """The stored rows, unless other rows would be kept now. They are compared again if the held-out answers changed."""
        first, new = self.seen.find(numpy.frombuffer(stored.answers, "<u8"))
        if mask_digest(keep_all(first).mask) != stored.kept:
            # The rows are chosen from those that are made now: an erasure may have taken a text that the stored ones had.
            return self._write(self._maker.start(key, grows=is_last))
        self.seen.keep(new)
        if stored.checked == self.held_out.digest or stored.grams is None:
            return lambda: stored
        shares = self.workers.submit(compare_segment, self.store.get(stored.grams.ref), self.held_out)
        return lambda: self._update_shares(stored, shares())

    def _update_shares(self, stored: SegmentResult, shares: Counts) -> SegmentResult:
        result = replace(stored, checked=self.held_out.digest, shares=pack_counts(shares))
        self._delete(self.corpus.keep_segment(result))
        return result

    def _write(self, making: Callable[[], SegmentRows]) -> Callable[[], SegmentResult]:
        rows = making()
        return self._submit(rows, keep_all(self.seen.add(rows.made.index["answer"])))

    def _submit(self, rows: SegmentRows, kept: RowChoice) -> Callable[[], SegmentResult]:
        made = rows.made
        written = self.workers.submit(write_rows, made.tables, kept.mask.tolist(), self.held_out)
        skipped = {**made.skipped, **count_repeated(made, kept.first)}
        rest = replace(rows, made=replace(made, tables=(), skipped=skipped))
        return lambda: self._store(rest, kept, written())

    def _store(self, segment: SegmentRows, kept: RowChoice, written: WrittenRows) -> SegmentResult:
        """Record the files before they are written, so that none is ever without a record."""
        key, made = segment.key, segment.made
        files = self._files(written, segment.members) if written.document_ids else {}
        parts = [(part_of(inputs, data), data) for inputs, data in segment.parts.items()]
        named = {name: file for name, (file, _) in files.items()}
        result = SegmentResult(
            number=key.number,
            inputs=self._inputs(key),
            kept=mask_digest(kept.mask),
            checked=self.held_out.digest,
            train=named.get("train"),
            sources=named.get("sources"),
            grams=named.get("grams"),
            counts=written.counts,
            letters=count_letters(made.places, kept.taught),
            skipped=dict(made.skipped),
            answers=made.index["answer"].tobytes(),
            shares=pack_counts(written.shares),
            parts=tuple(part for part, _ in parts),
        )
        obsolete = self.corpus.keep_segment(result)
        for file, data in files.values():
            self.store.put(DATASETS, file.ref.key, data, PARQUET)
        for part, data in parts:
            self.store.put(DATASETS, part.ref.key, data)
        self._delete(obsolete)
        log.info("segment built", segment=key.number, documents=key.documents, rows=written.counts.rows)
        return result

    @staticmethod
    def _files(written: WrittenRows, members: Sequence[Member]) -> dict[str, tuple[DatasetFile, bytes]]:
        """The files of a segment with their bytes."""
        ids, versions = written.document_ids, {it.document.document_id: it.document.digest for it in members}
        sources = write_ids({"document_id": ids, "digest": [versions[document_id] for document_id in ids]})
        files = {
            "train": (written.data, written.counts.rows),
            "sources": (sources, len(ids)),
            "grams": (written.grams, len(ids)),
        }
        return {name: (file_of(data, rows), data) for name, (data, rows) in files.items() if data}

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


def _mark_taught(segments: Sequence[MadeRows], kept: Sequence[Mask]) -> list[Mask]:
    """For each row, whether it or a row with an equal answer is kept."""
    rows = [made.index["answer"] for made in segments]
    parts = [answers[mask] for answers, mask in zip(rows, kept, strict=True)]
    known = numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)
    return [mask | (numpy.isin(answers, known) & (answers != 0)) for answers, mask in zip(rows, kept, strict=True)]


def _count_dropped(made: MadeRows, reasons: Sequence[str], steps: Sequence[Mask]) -> dict[str, SkippedCount]:
    """Counts of the rows that the limits remove, one after another."""
    counts: dict[str, SkippedCount] = {}
    for reason, pair in zip(reasons, itertools.pairwise(steps), strict=True):
        counts[reason] = counts.get(reason, SkippedCount()) + count_removed(made, *pair)
    return {reason: count for reason, count in counts.items() if count.rows}
