"""The work on a segment: make the rows of its documents, and write those that are kept."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy
from numpy.typing import NDArray

from services.synthetic.building.grams import GRAM_WORDS, Counts, GramHasher, GramSet, count_documents
from services.synthetic.building.overlap import Checker, count_in_train
from services.synthetic.building.overlap import Hashes as CheckHashes
from services.synthetic.corpus import Member
from services.synthetic.domain import Conversation, Kind, LeftOutText, Row, Specialist, Text, fingerprint
from services.synthetic.filters import boilerplate_ranges, has_words
from services.synthetic.ports import RowFiles, RowMaker, TokenCounter
from tailor.datasets import LeftOutCount

BOILERPLATE, TEXT_GONE = "boilerplate", "text_gone"
HUMAN = "human"
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Context:
    """What all segments of a build have in common. Can be pickled. `repeated` are hashes of boilerplate parts."""

    specialist: Specialist
    counter: TokenCounter
    maker: RowMaker
    files: RowFiles
    repeated: frozenset[int] = frozenset()


@dataclass(frozen=True)
class SegmentTask:
    """Documents with their texts, and the drafts of deliverables, by document id."""

    members: tuple[Member, ...]
    texts: Mapping[str, Text]
    drafts: Mapping[str, Conversation]


@dataclass(frozen=True)
class RawSegment:
    """All rows of some documents, before any are chosen. Arrays have an entry per row.

    `answers` are hashes of the answers of which only one may stay in the dataset, 0 for others. `draws` order rows at random but fixed.
    `documents` are numbers of documents in `ids`. `places` has (row, document, start, end), counted in characters that are not blank.
    """

    data: bytes
    ids: tuple[str, ...]
    answers: NDArray[numpy.uint64]
    draws: NDArray[numpy.uint64]
    tokens: NDArray[numpy.int64]
    is_human: NDArray[numpy.bool_]
    documents: NDArray[numpy.int64]
    places: NDArray[numpy.int64]
    left_out: Mapping[str, LeftOutCount]

    @property
    def rows(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class WrittenRows:
    """The kept rows as a file, with counts of them, the ids of their documents, and 13-grams of held-out answers by two methods."""

    data: bytes
    rows: int
    tokens: int
    tasks: Mapping[str, int]
    grounding: Mapping[str, int]
    languages: Mapping[str, int]
    document_ids: tuple[str, ...]
    shares: Counts
    checks: Counts


@dataclass(frozen=True)
class HeldOutGrams:
    """The 13-grams of the held-out answers, by two methods."""

    grams: GramSet
    checks: CheckHashes


@dataclass
class _Collector:
    """Collects the rows of documents."""

    rows: list[Row] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    left_out: dict[str, LeftOutCount] = field(default_factory=dict)

    def add_rows(self, rows: Sequence[Row], document: int, letters: "Letters") -> None:
        for row in rows:
            spans = (letters.range(start, end) for start, end in row.places)
            self.places += [(len(self.rows), document, start, end) for start, end in spans]
            self.documents.append(document)
            self.rows.append(row)

    def add_left_out(self, reason: str, rows: int = 0, characters: int = 0, documents: int = 0) -> None:
        known = self.left_out.get(reason, LeftOutCount())
        self.left_out[reason] = LeftOutCount(
            known.documents + documents, known.rows + rows, known.characters + characters
        )


class Letters:
    """Counts the characters of a text that are not blank."""

    def __init__(self, text: str) -> None:
        codes = numpy.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        blank = {code for code in numpy.unique(codes).tolist() if chr(code).isspace()}
        solid = ~numpy.isin(codes, list(blank))
        self._before = numpy.concatenate(([0], numpy.cumsum(solid)))

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


def make_segment(context: Context, task: SegmentTask) -> RawSegment:
    """Make all rows of the documents. Runs in a worker; deterministic."""
    collector = _Collector()
    for number, member in enumerate(task.members):
        text = task.texts.get(member.document.document_id)
        if text is None:
            collector.add_left_out(TEXT_GONE, documents=1, characters=member.letters)
        else:
            _add_document(collector, context, task, number, text)
    return _raw(context, collector, tuple(member.document.document_id for member in task.members))


def _add_document(collector: _Collector, context: Context, task: SegmentTask, number: int, text: Text) -> None:
    member = task.members[number]
    document, letters = member.document, Letters(text.text)
    skip = () if document.kind.is_pair else boilerplate_ranges(text.text, context.repeated)
    if skip and not has_words(text.text, skip):
        collector.add_left_out(BOILERPLATE, documents=1, characters=letters.total)
        return
    if skip:
        collector.add_left_out(BOILERPLATE, characters=sum(letters.count(start, end) for start, end in skip))
    document_rows = context.maker.make(document, text, context.specialist, context.counter, skip)
    rows, left_out = list(document_rows.rows), list(document_rows.left_out)
    draft = task.drafts.get(document.document_id)
    if draft is not None:
        finished = context.maker.make_deliverable(document, text, draft, context.specialist, context.counter)
        rows += finished.rows
        # The text is taught by other rows too, so only the refused rows count.
        left_out += [LeftOutText(entry.reason, entry.rows, 0) for entry in finished.left_out]
    collector.add_rows(rows, number, letters)
    _add_reasons(collector, left_out, has_rows=bool(rows))


def _add_reasons(collector: _Collector, left_out: Sequence[LeftOutText], *, has_rows: bool) -> None:
    """Count what a document leaves out. A document without rows is left out for the reason with the most characters."""
    main = max(left_out, key=lambda entry: entry.characters).reason if left_out and not has_rows else ""
    for entry in left_out:
        collector.add_left_out(entry.reason, entry.rows, entry.characters)
    if main:
        collector.add_left_out(main, documents=1)


def _raw(context: Context, collector: _Collector, ids: tuple[str, ...]) -> RawSegment:
    rows = collector.rows
    table = context.files.table(rows)
    return RawSegment(
        data=table.encode(),
        ids=ids,
        answers=numpy.array([answer_key(row) for row in rows], numpy.uint64),
        draws=numpy.array([draw(row_id) for row_id in table.column("row_id")], numpy.uint64),
        tokens=numpy.array([row.tokens for row in rows], numpy.int64),
        is_human=numpy.array([row.made_by == HUMAN for row in rows], numpy.bool_),
        documents=numpy.array(collector.documents, numpy.int64),
        places=numpy.array(collector.places, numpy.int64).reshape(-1, 4),
        left_out=collector.left_out,
    )


def write_rows(
    context: Context, data: Sequence[bytes], kept: Sequence[Sequence[bool]], held_out: HeldOutGrams | None
) -> WrittenRows:
    """Write the kept rows of some tables as one file. Runs in a worker; deterministic."""
    tables = [context.files.decode(part).select(mask) for part, mask in zip(data, kept, strict=True)]
    encoded = context.files.join(tables).encode()
    # The counts are those of the file as it will be read.
    table = context.files.decode(encoded)
    shares = count_documents(table, held_out.grams, GramHasher()) if held_out else {}
    return WrittenRows(
        data=encoded,
        rows=table.rows,
        tokens=sum(table.column("tokens")),
        tasks=Counter(table.column("task")),
        grounding=Counter(table.column("grounding")),
        languages=Counter(table.column("language")),
        document_ids=tuple(sorted({key for ids in table.column("document_ids") for key in ids})),
        shares=shares,
        checks=count_in_train(table, held_out.checks, Checker()) if held_out else {},
    )


def compare_rows(context: Context, data: bytes, held_out: HeldOutGrams) -> tuple[Counts, Counts]:
    """The 13-grams of held-out answers in a stored file, by both methods. Runs in a worker."""
    table = context.files.decode(data)
    return count_documents(table, held_out.grams, GramHasher()), count_in_train(table, held_out.checks, Checker())


def answer_key(row: Row) -> int:
    """Equal for rows of a task whose answers have the same words. 0 for golden rows and those that teach no passage, such as short answers."""
    if row.task == Kind.TEST.value:
        return 0
    answer = WORD.findall(" ".join(row.answers).lower())
    if not row.places or len(answer) < GRAM_WORDS:
        return 0
    parts = "\n".join([row.task, row.grounding.value, *answer])
    return int.from_bytes(hashlib.blake2b(parts.encode(), digest_size=8).digest(), "big")


def draw(row_id: str) -> int:
    """A fixed random number of 64 bits."""
    return int(fingerprint("budget", row_id)[:16], 16)


def count_letters(places: NDArray[numpy.int64], kept: NDArray[numpy.bool_]) -> int:
    """The characters that the kept rows teach, each once."""
    chosen = places[kept[places[:, 0]]] if len(places) else places
    ordered = chosen[numpy.lexsort((chosen[:, 2], chosen[:, 1]))]
    total, document, last_end = 0, -1, 0
    for _, owner, start, end in ordered.tolist():
        last_end = last_end if owner == document else 0
        document = owner
        total += max(0, end - max(start, last_end))
        last_end = max(last_end, end)
    return total
