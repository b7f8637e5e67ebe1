"""The train rows: segment by segment, reusing the segments whose inputs did not change since the last build."""

import itertools
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy

from services.synthetic.building.grams import pack_counts
from services.synthetic.building.limits import BUDGET, SOURCE_SHARE, Mask, SeenAnswers, limit_sources, limit_tokens
from services.synthetic.building.reading import READERS, MemberReader
from services.synthetic.building.segments import (
    Context,
    HeldOutGrams,
    RawSegment,
    WrittenRows,
    compare_rows,
    count_letters,
    make_segment,
    write_rows,
)
from services.synthetic.building.split import count_removed
from services.synthetic.building.workers import Workers
from services.synthetic.corpus import BuildCorpus, Member, SegmentKey, SegmentResult
from services.synthetic.datasets import PARQUET, file_of
from services.synthetic.domain import fingerprint
from tailor.datasets import LeftOutCount
from tailor.logging import get_logger
from tailor.storage.buckets import DATASETS
from tailor.storage.protocol import ObjectStore

log = get_logger(__name__)

REPEATED = "repeated"
MAX_AHEAD = 3
# Increase it whenever stored segments cannot be reused.
SEGMENT_VERSION = 3


@dataclass(frozen=True)
class SegmentJob:
    """A segment whose rows are being made."""

    key: SegmentKey
    members: Sequence[Member]
    result: Callable[[], RawSegment]


@dataclass(frozen=True)
class RowChoice:
    """The rows of a segment that are kept; those whose answers are taught, here or by an equal row; those whose answers are new here."""

    mask: Mask
    taught: Mask
    first: Mask
    left_out: Mapping[str, LeftOutCount] = field(default_factory=dict)


@dataclass
class TrainRows:
    """Makes and stores the train rows of a build's documents. `inputs` is a digest of what all segments depend on."""

    context: Context
    corpus: BuildCorpus
    store: ObjectStore
    workers: Workers
    held_out: HeldOutGrams
    inputs: str
    seen: SeenAnswers = field(default_factory=SeenAnswers)

    def build(self, max_tokens: int) -> list[SegmentResult]:
        """All segments with train documents, by number. Blocks."""
        keys = self.corpus.segments()
        self._delete(self.corpus.forget_segments([key.number for key in keys]))
        if max_tokens or self.context.specialist.filters.max_source_percent:
            return self._build_limited(keys, max_tokens)
        return list(self._build_all(keys))

    def _build_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentResult]:
        """Every row: a segment is written as soon as its rows are made."""
        stored = self._find_reusable(keys)
        ahead = deque(key for key in keys if key.number not in stored)
        jobs: deque[SegmentJob] = deque()
        writing: deque[Callable[[], SegmentResult]] = deque()
        for key in keys:
            while ahead and len(jobs) < MAX_AHEAD:
                jobs.append(self._make(ahead.popleft()))
            reused = stored.get(key.number)
            if reused is not None:
                writing.append(self._reuse(key, reused))
            else:
                writing.append(self._write(jobs.popleft()))
            while len(writing) >= MAX_AHEAD:
                yield writing.popleft()()
        while writing:
            yield writing.popleft()()

    def _build_limited(self, keys: Sequence[SegmentKey], max_tokens: int) -> list[SegmentResult]:
        """Rows within limits that concern all segments: the rows wait on disk until all are made."""
        with tempfile.TemporaryDirectory(prefix="tailor-rows-") as folder:
            sources: dict[str, str] = {}
            raws = [self._spill(job, Path(folder), sources) for job in self._make_all(keys)]
            steps = self._choose(raws, sources, max_tokens)
            results = []
            for key, raw, step in zip(keys, raws, steps, strict=True):
                data = (Path(folder) / str(key.number)).read_bytes()
                full = replace(raw, data=data, left_out={**raw.left_out, **step.left_out})
                results.append(self._submit(key, self.corpus.members(key.number), full, step)())
            return results

    def _make_all(self, keys: Sequence[SegmentKey]) -> Iterator[SegmentJob]:
        jobs: deque[SegmentJob] = deque()
        for key in keys:
            jobs.append(self._make(key))
            if len(jobs) >= MAX_AHEAD:
                yield jobs.popleft()
        while jobs:
            yield jobs.popleft()

    def _spill(self, job: SegmentJob, folder: Path, sources: dict[str, str]) -> RawSegment:
        sources.update((member.document.document_id, member.document.labels.source) for member in job.members)
        raw = job.result()
        (folder / str(job.key.number)).write_bytes(raw.data)
        return replace(raw, data=b"")

    def _choose(self, raws: Sequence[RawSegment], sources: dict[str, str], max_tokens: int) -> list["RowChoice"]:
        """What the limits keep of each segment."""
        percent = self.context.specialist.filters.max_source_percent
        steps = [[self.seen.add(raw.answers) for raw in raws]]
        limits: list[Callable[[list[Mask]], None]] = [
            lambda kept: limit_sources(raws, kept, sources.__getitem__, percent),
            lambda kept: limit_tokens(raws, kept, max_tokens),
            lambda kept: limit_sources(raws, kept, sources.__getitem__, percent),
        ]
        for limit in limits:
            steps.append([mask.copy() for mask in steps[-1]])
            limit(steps[-1])
        masks = [_mark_taught(raws, step) for step in steps]
        return [
            RowChoice(
                steps[-1][number],
                masks[-1][number],
                steps[0][number],
                _count_dropped(raw, [step[number] for step in masks]),
            )
            for number, raw in enumerate(raws)
        ]

    def _find_reusable(self, keys: Sequence[SegmentKey]) -> dict[int, SegmentResult]:
        """The stored segments with equal inputs whose files still exist."""
        results = (self.corpus.segment_result(key.number) for key in keys)
        equal = [
            result
            for key, result in zip(keys, results, strict=True)
            if result is not None and result.inputs == self._inputs(key)
        ]
        with ThreadPoolExecutor(READERS) as pool:
            exist = list(pool.map(self._exists, equal))
        return {result.number: result for result, is_there in zip(equal, exist, strict=True) if is_there}

    def _exists(self, result: SegmentResult) -> bool:
        return all(self.store.exists(DATASETS, stored.file.ref.key) for stored in result.files)

    def _inputs(self, key: SegmentKey) -> str:
        return fingerprint(SEGMENT_VERSION, self.inputs, key.number, key.digest)

    def _make(self, key: SegmentKey) -> SegmentJob:
        members = self.corpus.members(key.number)
        task = MemberReader(self.store).read(members)
        return SegmentJob(key, members, self.workers.submit(make_segment, task))

    def _reuse(self, key: SegmentKey, stored: SegmentResult) -> Callable[[], SegmentResult]:
        """The stored rows, unless other rows would be kept now. They are compared again if the held-out answers changed."""
        kept = keep_all(self.seen.add(numpy.frombuffer(stored.answers, "<u8")))
        if mask_digest(kept.mask) != stored.kept:
            job = self._make(key)
            return self._submit(key, job.members, job.result(), kept)
        if stored.checked == self.held_out.grams.digest or stored.train is None:
            return lambda: stored
        data = self.store.get(stored.train.ref)
        counts = self.workers.submit(compare_rows, data, self.held_out)
        return lambda: self._update_checks(stored, *counts())

    def _update_checks(self, stored: SegmentResult, shares: dict[int, int], checks: dict[int, int]) -> SegmentResult:
        checked = self.held_out.grams.digest
        result = replace(stored, checked=checked, shares=pack_counts(shares), checks=pack_counts(checks))
        self.corpus.keep_segment(result)
        return result

    def _write(self, job: SegmentJob) -> Callable[[], SegmentResult]:
        raw = job.result()
        return self._submit(job.key, job.members, raw, keep_all(self.seen.add(raw.answers)))

    def _submit(
        self, key: SegmentKey, members: Sequence[Member], raw: RawSegment, kept: RowChoice
    ) -> Callable[[], SegmentResult]:
        written = self.workers.submit(write_rows, [raw.data], [kept.mask.tolist()], self.held_out)
        rest = replace(raw, data=b"", left_out={**raw.left_out, **_count_repeated(raw, kept)})
        digests = {member.document.document_id: member.document.digest for member in members}
        return lambda: self._store(key, digests, rest, kept, written())

    def _store(
        self, key: SegmentKey, digests: Mapping[str, str], raw: RawSegment, kept: RowChoice, rows: WrittenRows
    ) -> SegmentResult:
        """Record the files before they are written, so that none is ever without a record."""
        ids = rows.document_ids
        columns = {"document_id": ids, "digest": [digests[name] for name in ids]}
        sources = self.context.files.ids(columns)
        files = ((file_of(rows.data, rows.rows), rows.data), (file_of(sources, len(ids)), sources)) if ids else ()
        result = SegmentResult(
            number=key.number,
            inputs=self._inputs(key),
            kept=mask_digest(kept.mask),
            checked=self.held_out.grams.digest,
            train=files[0][0] if files else None,
            sources=files[1][0] if files else None,
            tokens=rows.tokens,
            letters=count_letters(raw.places, kept.taught),
            tasks=dict(rows.tasks),
            grounding=dict(rows.grounding),
            languages=dict(rows.languages),
            documents=dict(rows.documents),
            left_out=dict(raw.left_out),
            answers=raw.answers.astype("<u8").tobytes(),
            shares=pack_counts(rows.shares),
            checks=pack_counts(rows.checks),
        )
        obsolete = self.corpus.keep_segment(result)
        for file, data in files:
            self.store.put(DATASETS, file.ref.key, data, PARQUET)
        self._delete(obsolete)
        log.info("segment built", segment=key.number, documents=key.documents, rows=rows.rows)
        return result

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.store.delete(DATASETS, key)


def mask_digest(mask: Mask) -> str:
    return fingerprint(numpy.packbits(mask).tobytes().hex(), len(mask))


def keep_all(first: Mask) -> RowChoice:
    """Keep every row whose answer is the first of its kind; the others are taught by that one."""
    return RowChoice(first, numpy.ones(len(first), numpy.bool_), first)


def _count_repeated(raw: RawSegment, kept: RowChoice) -> dict[str, LeftOutCount]:
    """The rows that repeat the answer of another, which teaches their text."""
    rows = int((~kept.first).sum())
    documents = set(range(len(raw.ids))) & (set(raw.documents.tolist()) - set(raw.documents[kept.first].tolist()))
    return {REPEATED: LeftOutCount(len(documents), rows, 0)} if rows else {}


def _mark_taught(raws: Sequence[RawSegment], kept: Sequence[Mask]) -> list[Mask]:
    """For each row, whether it or a row with an equal answer is kept."""
    parts = [raw.answers[mask] for raw, mask in zip(raws, kept, strict=True)]
    answers = numpy.unique(numpy.concatenate(parts)) if parts else numpy.empty(0, numpy.uint64)
    pairs = zip(raws, kept, strict=True)
    return [mask | (numpy.isin(raw.answers, answers) & (raw.answers != 0)) for raw, mask in pairs]


def _count_dropped(raw: RawSegment, steps: Sequence[Mask]) -> dict[str, LeftOutCount]:
    """Counts of the rows that each limit removes: of the sources, of the tokens, of the sources again."""
    first, budget, second = (count_removed(raw, *pair) for pair in itertools.pairwise(steps))
    share = LeftOutCount(
        first.documents + second.documents, first.rows + second.rows, first.characters + second.characters
    )
    return {reason: count for reason, count in ((SOURCE_SHARE, share), (BUDGET, budget)) if count.rows}
