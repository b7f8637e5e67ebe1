"""The work on a segment: make the rows of its documents, and write those that are kept."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache

import numpy
from numpy.typing import NDArray

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
from services.synthetic.corpus import UNREADABLE, Member, RowCounts
from services.synthetic.datasets import read_draft, read_text
from services.synthetic.domain import (
    Conversation,
    Kind,
    Row,
    SkippedText,
    Specialist,
    Text,
    fingerprint,
)
from services.synthetic.filters import boilerplate_ranges, has_words
from services.synthetic.parquet import (
    RowTable,
    join_tables,
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
READERS = 8
HASHES, DOCUMENTS = "hash", "documents"
NO_PLACES = numpy.empty((0, 4), numpy.int64)
# Of each row: a hash of the answer if only one row with it may stay in the dataset, or else 0; a number that orders rows at random, but
# always alike; its tokens; whether people wrote it; and the number of its document.
ROW_INDEX = numpy.dtype([("answer", "<u8"), ("draw", "<u8"), ("tokens", "<i8"), ("is_human", "?"), ("document", "<i8")])
NO_ROWS = numpy.empty(0, ROW_INDEX)
# The ideographic space.
LAST_BLANK = 0x3000


@dataclass(frozen=True)
class Context:
    """What all segments of a build have in common. Can be pickled. `repeated` are hashes of boilerplate parts."""

    specialist: Specialist
    counter: TokenCounter
    repeated: frozenset[int] = frozenset()


@dataclass(frozen=True)
class MemberText:
    """A document with its text, and the draft of a deliverable; None if they are not there or cannot be read."""

    member: Member
    text: Text | None
    draft: Conversation | None = None


def read_members(store: ObjectStore, members: Sequence[Member]) -> list[MemberText]:
    """Read texts and drafts, several at once. Blocks."""

    def read(member: Member) -> MemberText:
        draft = None if member.draft is None else read_draft(store, member.draft)
        return MemberText(member, read_text(store, member.document), draft)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(read, members))


@dataclass(frozen=True)
class MadeRows:
    """All rows of some documents, before any are chosen.

    `tables` are the rows as Parquet. `index` has an entry of ROW_INDEX per row, `ids` are the documents.
    `places` has (row, document, start, end), counted in characters that are not blank.
    """

    tables: tuple[bytes, ...]
    ids: tuple[str, ...]
    index: NDArray[numpy.void]
    places: NDArray[numpy.int64] = field(default_factory=lambda: NO_PLACES)
    skipped: Mapping[str, SkippedCount] = field(default_factory=dict)

    def read(self) -> RowTable:
        """The rows as one table."""
        return join_tables([read_table(data) for data in self.tables])


@dataclass(frozen=True)
class WrittenRows:
    """The kept rows as a file, with counts of them and the ids of their documents.

    `grams` is a file of all their 13-grams with the number of documents, `shares` are those of held-out answers.
    """

    data: bytes
    counts: RowCounts
    document_ids: tuple[str, ...]
    grams: bytes = b""
    shares: Counts = field(default_factory=dict)


@dataclass
class _Collector:
    """Collects the rows of documents. They become tables at once: as objects, they take many times the room."""

    tables: list[RowTable] = field(default_factory=list)
    index: list[NDArray[numpy.void]] = field(default_factory=list)
    places: list[NDArray[numpy.int64]] = field(default_factory=list)
    skipped: dict[str, SkippedCount] = field(default_factory=dict)

    def add_rows(self, rows: Sequence[Row], document: int, letters: "NonBlankOffsets") -> None:
        first = sum(map(len, self.index))
        places = [(number, document, *place) for number, row in enumerate(rows, first) for place in row.places]
        if places:
            self.places.append(letters.count_before(numpy.array(places, numpy.int64)))
        hasher = gram_hasher()
        entries = [(answer_key(row, hasher), draw(row), row.tokens, row.made_by == HUMAN, document) for row in rows]
        self.tables.append(make_table(rows))
        self.index.append(numpy.array(entries, ROW_INDEX))

    def add_skipped(self, reason: str, rows: int = 0, characters: int = 0, documents: int = 0) -> None:
        self.skipped[reason] = self.skipped.get(reason, SkippedCount()) + SkippedCount(documents, rows, characters)

    def join(self, ids: tuple[str, ...]) -> MadeRows:
        return MadeRows(
            tables=(join_tables(self.tables).encode(),),
            ids=ids,
            index=numpy.concatenate([NO_ROWS, *self.index]),
            places=numpy.concatenate([NO_PLACES, *self.places]),
            skipped=self.skipped,
        )


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


def make_segment(context: Context, texts: Sequence[MemberText]) -> MadeRows:
    """Make all rows of the documents. Runs in a worker; deterministic."""
    collector = _Collector()
    for number, text in enumerate(texts):
        _add_document(collector, context, number, text)
    return collector.join(tuple(text.member.document.document_id for text in texts))


def _add_document(collector: _Collector, context: Context, number: int, source: MemberText) -> None:
    member, text, document = source.member, source.text, source.member.document
    if text is None:
        collector.add_skipped(UNREADABLE, documents=1, characters=member.letters)
        return
    letters = NonBlankOffsets(text.text)
    skip = () if document.kind.is_pair else boilerplate_ranges(text.text, context.repeated)
    if skip and not has_words(text.text, skip):
        collector.add_skipped(BOILERPLATE, documents=1, characters=letters.total)
        return
    if skip:
        collector.add_skipped(BOILERPLATE, characters=sum(letters.count(start, end) for start, end in skip))
    document_rows = make_rows(document, text, context.specialist, context.counter, skip)
    rows, skipped = list(document_rows.rows), list(document_rows.skipped)
    if source.draft is not None:
        finished = make_deliverable_rows(document, text, source.draft, context.specialist, context.counter)
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


def write_rows(context: Context, data: Sequence[bytes], kept: Sequence[bool], held_out: GramSet | None) -> WrittenRows:
    """Write the kept rows of some tables as one file; `kept` has an entry per row of all. Runs in a worker; deterministic."""
    encoded = _select(data, kept)
    # The counts are those of the file as it will be read.
    table = read_table(encoded)
    counts = RowCounts(
        rows=table.rows,
        tokens=sum(table.column("tokens")),
        tasks=Counter(table.column("task")),
        grounding=Counter(table.column("grounding")),
        languages=Counter(table.column("language")),
        makers=Counter(table.column("made_by")),
        documents=_count_documents(table),
    )
    document_ids = tuple(sorted({key for ids in table.column("document_ids") for key in ids}))
    written = WrittenRows(encoded, counts, document_ids)
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
    """Equal for rows of a task whose answers have the same words. 0 for golden rows, those that teach no passage, and short answers."""
    is_free = not row.places or row.task == Kind.TEST.value
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
