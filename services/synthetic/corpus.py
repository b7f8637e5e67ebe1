"""The documents of a build: their sketches, their components and sides, their segments, and what is stored of each segment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from services.synthetic.domain import Document, KeptDraft, Specialist
from tailor.datasets import DatasetFile, LeftOutCount, QuizFiles
from tailor.storage.ref import Ref

# Documents of a segment, in the order in which they were prepared first.
SEGMENT_DOCUMENTS = 256
ALL_SEGMENTS = -1
NEAR_DUPLICATES = "near_duplicates"


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset. `segment` is that of the documents that it was made from; ALL_SEGMENTS if they may be anywhere.

    It has rows, unless `is_sources` or `is_quiz` says otherwise.
    """

    file: DatasetFile
    segment: int
    is_sources: bool = False
    is_quiz: bool = False


@dataclass(frozen=True)
class Assignment:
    """A document's component and its side of a specialist's split. Never changes.

    A component joins the documents that share near-duplicate passages; it has the id of its first document. `rows` counts the held-out
    rows that the document gave when it was assigned.
    """

    document_id: str
    component_id: str
    held_out: bool
    rows: int = 0


@dataclass(frozen=True)
class Link:
    """A document of a cluster of near-duplicate texts, and its assignment, if it has one."""

    cluster_id: int
    document_id: str
    component_id: str = ""
    held_out: bool = False


@dataclass(frozen=True)
class Member:
    """A document that gives rows, with its characters that are not blank, and its saved draft if it is a deliverable.

    `missed` means that the last evaluation missed or contradicted what it says. `fingerprint` changes whenever its rows may.
    """

    document: Document
    letters: int
    draft: KeptDraft | None = None
    missed: bool = False
    fingerprint: str = ""


@dataclass(frozen=True)
class ExtraCount:
    """The rows that documents got in addition because they were missed, and the documents that got some."""

    documents: int = 0
    rows: int = 0


@dataclass(frozen=True)
class SplitSize:
    """The assigned documents, those of them that are held out and gave rows when they were assigned, and these rows."""

    documents: int = 0
    held_out_documents: int = 0
    held_out_rows: int = 0


@dataclass(frozen=True)
class SegmentKey:
    """The train documents of a segment: `digest` changes whenever one of them does."""

    number: int
    digest: str
    documents: int


@dataclass(frozen=True)
class StoredPart:
    """All rows of a part of a segment as they were made, before any were chosen. `inputs` is a digest of everything that they depend on."""

    inputs: str
    ref: Ref


@dataclass(frozen=True)
class SegmentResult:
    """The stored train rows of a segment, so that a later build with equal inputs reuses them.

    `inputs` is a digest of everything that the rows depend on, `kept` of which were kept, and `checked` of the held-out answers that they
    were compared with. The files are None without rows. `letters` are the characters that the rows teach, `documents` those
    that give rows, by language. `answers` are hashes of the
    answers of all rows that were made. By two independent methods, `grams` and `check_grams` have all 13-grams of the rows with the number
    of documents, `shares` and `checks` those of the held-out answers. `extra` counts the rows that missed documents got in addition, and
    those documents. `parts` are only stored while the segment may grow.
    """

    number: int
    inputs: str
    kept: str
    checked: str
    train: DatasetFile | None
    sources: DatasetFile | None
    grams: DatasetFile | None
    check_grams: DatasetFile | None
    tokens: int
    letters: int
    tasks: Mapping[str, int]
    grounding: Mapping[str, int]
    languages: Mapping[str, int]
    left_out: Mapping[str, LeftOutCount]
    documents: Mapping[str, int] = field(default_factory=dict)
    answers: bytes = b""
    shares: bytes = b""
    checks: bytes = b""
    quiz: QuizFiles = field(default_factory=QuizFiles)
    extra: ExtraCount = ExtraCount()
    parts: tuple[StoredPart, ...] = ()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files, for the lists of a dataset."""
        train = (StoredFile(self.train, self.number),) if self.train else ()
        sources = (StoredFile(self.sources, self.number, is_sources=True),) if self.sources else ()
        return train + sources + tuple(StoredFile(file, self.number, is_quiz=True) for file in self.quiz.files)

    @property
    def keys(self) -> list[str]:
        """The keys of all files, also of those that belong to no dataset."""
        files = (self.train, self.sources, self.grams, self.check_grams, *self.quiz.files)
        return [file.ref.key for file in files if file is not None] + [part.ref.key for part in self.parts]


@dataclass(frozen=True)
class StoredSegment:
    """What tells whether a stored segment can be reused: the digest of its inputs, and the keys of all of its files."""

    inputs: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class TextSketch:
    """MinHash of a text and its bands; texts that share no band are not near-duplicates."""

    minhash: bytes
    bands: tuple[int, ...]
    threshold: float


@dataclass(frozen=True)
class Sketch:
    """What is known of a document's text before any build. Without `whole`, the text no longer exists.

    `letters` counts its characters that are not blank, `parts` are hashes of its paragraphs and lines, `seconds` is the time that it took.
    """

    document: Document
    whole: TextSketch | None = None
    passages: tuple[TextSketch, ...] = ()
    characters: int = 0
    letters: int = 0
    parts: tuple[int, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class NearDuplicateCount:
    """The number of documents, of those that are compared so far, of near-duplicates of an earlier document, and of groups."""

    documents: int
    compared: int
    near_duplicates: int
    groups: int


class BuildCorpus(Protocol):
    """The documents of one build: those that the specialist selects, as they were when the build began. Used by one thread."""

    def documents(self) -> int:
        """The number of documents that give rows."""
        ...

    def left_out(self) -> dict[str, LeftOutCount]:
        """Documents by the reason why a filter removes them, and NEAR_DUPLICATES of an admitted document, which represents them."""
        ...

    def letters(self) -> int:
        """Characters of the documents that give rows, without blanks."""
        ...

    def intake_seconds(self) -> float:
        """The time that preparing these documents took."""
        ...

    def repeated_parts(self, documents: int) -> list[int]:
        """Sorted hashes of the paragraphs and lines that at least this number of the documents have."""
        ...

    def unassigned(self) -> list[str]:
        """Ids of admitted documents without an assignment, in the order in which they were prepared."""
        ...

    def golden(self, document_ids: Sequence[str]) -> set[str]:
        """The golden documents (kind `test`) among these."""
        ...

    def links(self, boilerplate_documents: int) -> Iterator[Link]:
        """Stream the clusters that join an unassigned document to others, cluster by cluster.

        A passage that stands in `boilerplate_documents` documents or more joins nothing; nearly equal documents are always joined.
        """
        ...

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Keep assignments, a page at a time; existing ones do not change."""
        ...

    def mark_missed(self, document_ids: Sequence[str]) -> None:
        """Mark documents as missed by the last evaluation, so that their segments change. Unknown documents are ignored."""
        ...

    def quiz_draw(self, rank: int) -> int | None:
        """The draw (`quiz_draw`) of the train document with this rank, from 0 and by draw; None if there are not as many."""
        ...

    def split_size(self) -> SplitSize:
        """The documents and rows that are assigned."""
        ...

    def representatives(self, document_ids: Sequence[str]) -> list[Member]:
        """Those of the documents that represent their near-duplicates and give rows, in the order in which they were prepared."""
        ...

    def held_out(self) -> list[Member]:
        """The held-out documents that give rows, in the order in which they were prepared."""
        ...

    def held_out_digest(self) -> str:
        """Changes whenever one of the held-out documents does."""
        ...

    def segments(self) -> list[SegmentKey]:
        """The segments with train documents, by number."""
        ...

    def members(self, segment: int) -> list[Member]:
        """The train documents of a segment, in the order in which they were prepared."""
        ...

    def sources(self, document_ids: Sequence[str]) -> dict[str, str]:
        """The digests of the documents' versions, without unknown documents."""
        ...

    def segment_of(self, document_ids: Sequence[str]) -> dict[str, int]:
        """The segments of the documents, without unknown documents."""
        ...

    def sides(self, document_ids: Sequence[str]) -> dict[str, bool]:
        """True for each document that is held out, without those that have no assignment."""
        ...

    def stored_segments(self) -> dict[int, StoredSegment]:
        """The inputs and files of all stored segments, by number."""
        ...

    def segment_result(self, segment: int) -> SegmentResult | None:
        """The stored rows of a segment."""
        ...

    def keep_segment(self, result: SegmentResult) -> list[str]:
        """Store the rows of a segment. Returns keys of files of its former rows that no dataset has."""
        ...

    def record_files(self, keys: Sequence[str]) -> None:
        """Record files before they are written, until `Builds.finish` lists them, so that none is ever without a record."""
        ...

    def forget_segments(self, numbers: Sequence[int]) -> list[str]:
        """Drop all stored segments but these. Returns keys of their files, and of recorded files, that no dataset has."""
        ...


class Corpora(Protocol):
    """Makes the corpora of builds."""

    def open(self, specialist: Specialist) -> AbstractContextManager[BuildCorpus]:
        """The specialist's documents as they are now. Every selected document must be prepared (`Sketches`)."""
        ...
