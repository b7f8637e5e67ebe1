"""The work on a segment: make the rows of its documents, and write those that are kept."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache

import numpy
from numpy.typing import NDArray

from services.synthetic.building.closed_book import WrittenClosedBook, closed_book_draw, write_closed_book
from services.synthetic.building.grams import (
    GRAM_WORDS,
    HASH_BYTES,
    Counts,
    GramCounts,
    GramHasher,
    GramSet,
    count_documents,
    gram_hasher,
)
from services.synthetic.corpus import UNREADABLE, Member
from services.synthetic.datasets import read_draft, read_text
from services.synthetic.domain import (
    EXTRA,
    ClosedBookRow,
    Conversation,
    Kind,
    Row,
    RowNeeds,
    SkippedText,
    Specialist,
    Text,
    fingerprint,
)
from services.synthetic.filters import boilerplate_ranges, has_words
from services.synthetic.parquet import (
    RowTable,
    join_tables,
    make_closed_book_table,
    make_table,
    read_numbers,
    read_table,
    write_numbers,
)
from services.synthetic.ports import TokenCounter
from services.synthetic.rows.document_rows import make_deliverable_rows, make_rows
from tailor.datasets import SkippedCount
from tailor.storage.protocol import ObjectStore

BOILERPLATE = "boilerplate"
HUMAN = "human"
OWN = {"structure", HUMAN}
# Rows that wait as objects.
MAX_WAITING = 1_000
READERS = 8
HASHES, DOCUMENTS = "hash", "documents"
NO_PLACES = numpy.empty((0, 4), numpy.int64)
# The ideographic space.
LAST_BLANK = 0x3000


@dataclass(frozen=True)
class Context:
    """What all segments of a build have in common. Can be pickled. `repeated` are hashes of boilerplate parts."""

    specialist: Specialist
    counter: TokenCounter
    repeated: frozenset[int] = frozenset()


@dataclass(frozen=True)
class SegmentTask:
    """Documents with texts, and drafts of deliverables, by document id. Those with a draw below `closed_book_below` have closed-book
    questions."""

    members: tuple[Member, ...]
    texts: Mapping[str, Text]
    drafts: Mapping[str, Conversation]
    closed_book_below: int = 0

    def needs(self, member: Member, specialist: Specialist) -> RowNeeds:
        """The needs of a document besides its rows."""
        policy = specialist.rows
        is_asked = closed_book_draw(member.document.document_id) < self.closed_book_below
        return RowNeeds(policy.closed_book_questions * is_asked, policy.missed_extra_rows * member.missed)


def read_members(store: ObjectStore, members: Sequence[Member]) -> SegmentTask:
    """The task of making these documents' rows. Reads texts and drafts, several at once. Blocks."""
    drafts = [member for member in members if member.draft is not None]
    with ThreadPoolExecutor(READERS) as pool:
        texts = list(pool.map(lambda member: read_text(store, member.document), members))
        answers = list(pool.map(lambda member: member.draft and read_draft(store, member.draft), drafts))
    return SegmentTask(
        tuple(members),
        {member.document.document_id: text for member, text in zip(members, texts, strict=True) if text},
        {member.document.document_id: draft for member, draft in zip(drafts, answers, strict=True) if draft},
    )


@dataclass(frozen=True)
class RawSegment:
    """All rows of some documents, before any are chosen. Arrays have an entry per row.

    `answers` are hashes of the answers of which only one may stay in the dataset, 0 for others. `draws` order rows at random but fixed.
    `documents` are numbers of documents in `ids`. `places` has (row, document, start, end), counted in characters that are not blank.
    `is_extra` marks the rows that missed documents got in addition. As Parquet, `tables` are the rows and `closed_book` the questions of
    all documents.
    """

    tables: tuple[bytes, ...]
    ids: tuple[str, ...]
    answers: NDArray[numpy.uint64]
    draws: NDArray[numpy.uint64]
    tokens: NDArray[numpy.int64]
    is_human: NDArray[numpy.bool_]
    documents: NDArray[numpy.int64]
    places: NDArray[numpy.int64]
    skipped: Mapping[str, SkippedCount]
    is_extra: NDArray[numpy.bool_]
    closed_book: tuple[bytes, ...] = ()

    @property
    def rows(self) -> int:
        return len(self.tokens)

    def read(self) -> RowTable:
        """The rows as one table."""
        return join_tables([read_table(data) for data in self.tables])


@dataclass(frozen=True)
class WrittenRows:
    """The kept rows as a file, with counts of them and the ids of their documents.

    `grams` is a file of all their 13-grams with the number of documents, `shares` are those of held-out answers. `documents` counts those
    that gave rows themselves, by language.
    """

    data: bytes
    rows: int
    tokens: int
    tasks: Mapping[str, int]
    grounding: Mapping[str, int]
    languages: Mapping[str, int]
    makers: Mapping[str, int]
    documents: Mapping[str, int]
    document_ids: tuple[str, ...]
    grams: bytes = b""
    shares: Counts = field(default_factory=dict)
    closed_book: WrittenClosedBook = WrittenClosedBook()  # noqa: RUF009 - frozen


@dataclass
class _Collector:
    """Collects the rows of documents. Only a few wait as objects, which take many times the room of a table."""

    waiting: list[Row] = field(default_factory=list)
    tables: list[RowTable] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    draws: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    is_human: list[bool] = field(default_factory=list)
    is_extra: list[bool] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    places: list[NDArray[numpy.int64]] = field(default_factory=list)
    skipped: dict[str, SkippedCount] = field(default_factory=dict)
    closed_book: list[ClosedBookRow] = field(default_factory=list)

    def add_rows(self, rows: Sequence[Row], document: int, letters: "NonBlankOffsets") -> None:
        places = [
            (number, document, start, end)
            for number, row in enumerate(rows, len(self.documents))
            for start, end in row.places
        ]
        if places:
            self.places.append(letters.count_before(numpy.array(places, numpy.int64)))
        self.documents += [document] * len(rows)
        self.waiting += rows
        if len(self.waiting) >= MAX_WAITING:
            self.flush()

    def flush(self) -> None:
        """Make a table of the waiting rows."""
        rows, hasher = self.waiting, gram_hasher()
        table = make_table(rows)
        self.tables.append(table)
        self.answers += [answer_key(row, hasher) for row in rows]
        self.draws += map(draw, rows)
        self.tokens += [row.tokens for row in rows]
        self.is_human += [row.made_by == HUMAN for row in rows]
        self.is_extra += [row.lineage == EXTRA for row in rows]
        self.waiting = []

    def add_skipped(self, reason: str, rows: int = 0, characters: int = 0, documents: int = 0) -> None:
        self.skipped[reason] = self.skipped.get(reason, SkippedCount()) + SkippedCount(documents, rows, characters)


class NonBlankOffsets:
    """Counts the characters of a text that are not blank."""

    def __init__(self, text: str) -> None:
        codes = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        solid = ~_blanks()[numpy.minimum(codes, LAST_BLANK + 1)]
        self._before = numpy.concatenate(([0], numpy.cumsum(solid)))

    def count_before(self, places: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
        """Places (row, document, start, end) whose starts and ends are counted in characters that are not blank."""
        places[:, 2:] = self._before[numpy.minimum(places[:, 2:], len(self._before) - 1)]
        return places

    def range(self, start: int, end: int) -> tuple[int, int]:
        """A range of characters in characters that are not blank."""
        last = len(self._before) - 1
        return int(self._before[min(start, last)]), int(self._before[min(end, last)])

    def count(self, start: int, end: int) -> int:
        """Those in a range of characters."""
        first, last = self.range(start, end)
        return last - first

    @property
    def total(self) -> int:
        return int(self._before[-1])


@cache
def _blanks() -> NDArray[numpy.bool_]:
    """True for each blank, by code point; the last entry stands for all higher ones."""
    return numpy.array([chr(code).isspace() for code in range(LAST_BLANK + 2)])


def make_segment(context: Context, task: SegmentTask) -> RawSegment:
    """Make all rows of the documents. Runs in a worker; deterministic."""
    collector = _Collector()
    for number, member in enumerate(task.members):
        text = task.texts.get(member.document.document_id)
        if text is None:
            collector.add_skipped(UNREADABLE, documents=1, characters=member.letters)
        else:
            _add_document(collector, context, task, number, text)
    return _raw(collector, tuple(member.document.document_id for member in task.members))


def _add_document(collector: _Collector, context: Context, task: SegmentTask, number: int, text: Text) -> None:
    member = task.members[number]
    document, letters = member.document, NonBlankOffsets(text.text)
    skip = () if document.kind.is_pair else boilerplate_ranges(text.text, context.repeated)
    if skip and not has_words(text.text, skip):
        collector.add_skipped(BOILERPLATE, documents=1, characters=letters.total)
        return
    if skip:
        collector.add_skipped(BOILERPLATE, characters=sum(letters.count(start, end) for start, end in skip))
    needs = task.needs(member, context.specialist)
    document_rows = make_rows(document, text, context.specialist, context.counter, skip, needs=needs)
    collector.closed_book += document_rows.closed_book
    rows, skipped = list(document_rows.rows), list(document_rows.skipped)
    draft = task.drafts.get(document.document_id)
    if draft is not None:
        finished = make_deliverable_rows(document, text, draft, context.specialist, context.counter)
        rows += finished.rows
        # The text is taught by other rows too, so only the refused rows count.
        skipped += [SkippedText(entry.reason, entry.rows, 0) for entry in finished.skipped]
    collector.add_rows(rows, number, letters)
    _add_reasons(collector, skipped, has_rows=bool(rows))


def _add_reasons(collector: _Collector, skipped: Sequence[SkippedText], *, has_rows: bool) -> None:
    """Count what a document leaves out. A document without rows is left out for the reason with the most characters."""
    main = max(skipped, key=lambda entry: entry.characters).reason if skipped and not has_rows else ""
    for entry in skipped:
        collector.add_skipped(entry.reason, entry.rows, entry.characters)
    if main:
        collector.add_skipped(main, documents=1)


def _raw(collector: _Collector, ids: tuple[str, ...]) -> RawSegment:
    collector.flush()
    return RawSegment(
        tables=(join_tables(collector.tables).encode(),),
        ids=ids,
        answers=numpy.array(collector.answers, numpy.uint64),
        draws=numpy.array(collector.draws, numpy.uint64),
        tokens=numpy.array(collector.tokens, numpy.int64),
        is_human=numpy.array(collector.is_human, numpy.bool_),
        documents=numpy.array(collector.documents, numpy.int64),
        places=numpy.concatenate([NO_PLACES, *collector.places]),
        skipped=collector.skipped,
        is_extra=numpy.array(collector.is_extra, numpy.bool_),
        closed_book=(make_closed_book_table(collector.closed_book).encode(),) if collector.closed_book else (),
    )


def write_segment(
    context: Context, raw: RawSegment, kept: Sequence[bool], held_out: GramSet, closed_book_below: int
) -> WrittenRows:
    """Write the kept rows of a segment, and the closed-book set of the documents that have some. Runs in a worker; deterministic."""
    written = write_rows(context, raw.tables, kept, held_out)
    return replace(written, closed_book=write_closed_book(raw.closed_book, written.document_ids, closed_book_below))


def write_rows(context: Context, data: Sequence[bytes], kept: Sequence[bool], held_out: GramSet | None) -> WrittenRows:
    """Write the kept rows of some tables as one file; `kept` has an entry per row of all. Runs in a worker; deterministic."""
    encoded = _select(data, kept)
    # The counts are those of the file as it will be read.
    table = read_table(encoded)
    written = WrittenRows(
        data=encoded,
        rows=table.rows,
        tokens=sum(table.column("tokens")),
        tasks=Counter(table.column("task")),
        grounding=Counter(table.column("grounding")),
        languages=Counter(table.column("language")),
        makers=Counter(table.column("made_by")),
        documents=_count_documents(table),
        document_ids=tuple(sorted({key for ids in table.column("document_ids") for key in ids})),
    )
    if held_out is None:
        return written
    grams = count_documents(table, gram_hasher())
    return replace(written, grams=_write_grams(grams), shares=grams.find(held_out.hashes))


def _select(data: Sequence[bytes], kept: Sequence[bool]) -> bytes:
    tables, start = [], 0
    for part in data:
        table = read_table(part)
        tables.append(table.select(kept[start : start + table.rows]))
        start += table.rows
    return join_tables(tables).encode()


def compare_segment(context: Context, grams: bytes, held_out: GramSet) -> Counts:
    """The 13-grams of held-out answers in stored train rows, from the file of their 13-grams. Runs in a worker."""
    columns = read_numbers(grams)
    counts = GramCounts(*(numpy.frombuffer(columns[name], "<u8") for name in (HASHES, DOCUMENTS)))
    return counts.find(held_out.hashes)


def _count_documents(table: RowTable) -> Counter[str]:
    """Documents by language, without those that are only seeds of other rows."""
    columns = (table.column(name) for name in ("made_by", "document_ids", "language"))
    documents = {(key, language) for maker, ids, language in zip(*columns, strict=True) if maker in OWN for key in ids}
    return Counter(language for _, language in documents)


def _write_grams(counts: GramCounts) -> bytes:
    return write_numbers({HASHES: counts.hashes.tobytes(), DOCUMENTS: counts.documents.tobytes()})


def answer_key(row: Row, hasher: GramHasher) -> int:
    """Equal for rows of a task whose answers have the same words. 0 for golden rows and those that teach no passage, such as short answers.

    Rows in addition repeat answers in order to teach them.
    """
    is_free = not row.places or row.lineage == EXTRA or row.task == Kind.TEST.value
    words = b"" if is_free else b"".join(map(hasher.words, row.answers))
    if len(words) < GRAM_WORDS * HASH_BYTES:
        return 0
    head = f"{row.task}\n{row.grounding.value}\n"
    return int.from_bytes(hashlib.blake2b(head.encode() + words, digest_size=8).digest(), "big")


def draw(row: Row) -> int:
    """A fixed random number of 64 bits, the same for the same chat: ids of documents are new in each installation."""
    return int(fingerprint("budget", row.task, row.messages)[:16], 16)


def count_letters(places: NDArray[numpy.int64], kept: NDArray[numpy.bool_]) -> int:
    """The characters that the kept rows teach, each once."""
    chosen = places[kept[places[:, 0]]] if len(places) else places
    if not len(chosen):
        return 0
    # On one line, document after document, a place counts from where the earlier ones end.
    offsets = chosen[:, 1] * (int(chosen[:, 3].max()) + 1)
    order = numpy.argsort(chosen[:, 2] + offsets)
    starts, ends = ((chosen[:, column] + offsets)[order] for column in (2, 3))
    covered = numpy.concatenate((starts[:1], numpy.maximum.accumulate(ends)[:-1]))
    return int(numpy.maximum(0, ends - numpy.maximum(starts, covered)).sum())
