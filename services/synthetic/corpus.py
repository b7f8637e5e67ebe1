"""The documents of a build: their sketches, their components and sides, their segments, and what is stored of each segment."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.synthetic.domain import Document, KeptDraft
from tailor.datasets import DatasetFile, SkippedCount
from tailor.storage.ref import Ref

# Documents of a segment, in the order in which they were prepared first.
SEGMENT_DOCUMENTS = 256
ALL_SEGMENTS = -1
# Why documents give no rows.
NEAR_DUPLICATES, UNREADABLE = "near_duplicates", "unreadable"
NOT_ADMITTED, SAME_PUBLISHER = "not_admitted", "same_publisher"


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset. `segment` is that of the documents that it was made from; ALL_SEGMENTS if they may be anywhere.

    It has rows, unless `is_sources` says otherwise.
    """

    file: DatasetFile
    segment: int
    is_sources: bool = False


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

    `fingerprint` changes whenever its rows may.
    """

    document: Document
    letters: int
    draft: KeptDraft | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class RowCounts:
    """Rows and their tokens, the rows by task, grounding, language and maker, and the documents that gave rows themselves by language."""

    rows: int = 0
    tokens: int = 0
    tasks: Mapping[str, int] = field(default_factory=dict)
    grounding: Mapping[str, int] = field(default_factory=dict)
    languages: Mapping[str, int] = field(default_factory=dict)
    makers: Mapping[str, int] = field(default_factory=dict)
    documents: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "RowCounts") -> "RowCounts":
        return RowCounts(
            self.rows + other.rows,
            self.tokens + other.tokens,
            Counter(self.tasks) + Counter(other.tasks),
            Counter(self.grounding) + Counter(other.grounding),
            Counter(self.languages) + Counter(other.languages),
            Counter(self.makers) + Counter(other.makers),
            Counter(self.documents) + Counter(other.documents),
        )


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
    were compared with. The files are None without rows. `letters` are the characters that the rows teach. `answers` are hashes of the
    answers of all rows that were made. `grams` has all 13-grams of the rows with the number of documents, `shares` are those of the
    held-out answers. `parts` are only stored while the segment may grow.
    """

    number: int
    inputs: str
    kept: str
    checked: str
    train: DatasetFile | None
    sources: DatasetFile | None
    grams: DatasetFile | None
    letters: int
    skipped: Mapping[str, SkippedCount]
    counts: RowCounts = field(default_factory=RowCounts)
    answers: bytes = b""
    shares: bytes = b""
    parts: tuple[StoredPart, ...] = ()

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files, for the lists of a dataset."""
        train = (StoredFile(self.train, self.number),) if self.train else ()
        sources = (StoredFile(self.sources, self.number, is_sources=True),) if self.sources else ()
        return train + sources

    @property
    def keys(self) -> list[str]:
        """The keys of all files, also of those that belong to no dataset."""
        files = (self.train, self.sources, self.grams)
        return [file.ref.key for file in files if file is not None] + [part.ref.key for part in self.parts]


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
