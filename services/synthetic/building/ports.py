"""The Protocols of what a build needs from outside: the documents as they were when it began, and what does its work."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from services.synthetic.corpus import (
    Assignment,
    Link,
    Member,
    SegmentKey,
    SegmentResult,
    SplitSize,
)
from services.synthetic.domain import Specialist
from tailor.datasets import SkippedCount

T = TypeVar("T")


class CorpusFigures(Protocol):
    """Figures of the documents of a build, for its dataset. Used by one thread."""

    def documents(self) -> int:
        """The number of documents that give rows."""
        ...

    def skipped(self) -> dict[str, SkippedCount]:
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


class CorpusDocuments(Protocol):
    """The documents of a build that give rows. Used by one thread."""

    def mark_missed(self, document_ids: Sequence[str]) -> None:
        """Mark documents as missed by the last evaluation, so that their segments change. Unknown documents are ignored."""
        ...

    def closed_book_draw(self, rank: int) -> int | None:
        """The draw (`closed_book_draw`) of the train document with this rank, from 0 and by draw; None if there are not as many."""
        ...

    def held_out(self) -> list[Member]:
        """The held-out documents that give rows, in the order in which they were prepared."""
        ...

    def held_out_digest(self) -> str:
        """Changes whenever one of the held-out documents does."""
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


class SplitDocuments(Protocol):
    """The documents of a build, for their assignment to a side of the split. Used by one thread."""

    def unassigned(self) -> list[str]:
        """Ids of admitted documents without an assignment, in the order in which they were prepared."""
        ...

    def golden(self, document_ids: Sequence[str]) -> set[str]:
        """The golden documents (kind `test`) among these."""
        ...

    def links(self, boilerplate_documents: int) -> Iterator[Link]:
        """Stream the clusters that join an unassigned document to others, cluster by cluster.

        A passage that occurs in `boilerplate_documents` documents or more joins nothing; nearly equal documents are always joined.
        """
        ...

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Keep assignments, a page at a time; existing ones do not change."""
        ...

    def split_size(self) -> SplitSize:
        """The documents and rows that are assigned."""
        ...

    def representatives(self, document_ids: Sequence[str]) -> list[Member]:
        """Those of the documents that represent their near-duplicates and give rows, in the order in which they were prepared."""
        ...


class SegmentStore(Protocol):
    """The segments of the train documents of a build, and what is stored of each. Used by one thread."""

    def segments(self) -> list[SegmentKey]:
        """The segments with train documents, by number."""
        ...

    def train_letters(self) -> tuple[int, int]:
        """Characters, without blanks, of the largest train document and of all."""
        ...

    def members(self, segment: int) -> list[Member]:
        """The train documents of a segment, in the order in which they were prepared."""
        ...

    def stored_segments(self) -> dict[int, str]:
        """The digest of the inputs of each stored segment, by number."""
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


class BuildCorpus(CorpusFigures, CorpusDocuments, SplitDocuments, SegmentStore, Protocol):
    """The documents of one build: those that the specialist selects, as they were when the build began. Used by one thread."""


class Corpora(Protocol):
    """Makes the corpora of builds."""

    def open(self, specialist: Specialist) -> AbstractContextManager[BuildCorpus]:
        """The specialist's documents as they are now. Every selected document must be prepared (`Sketches`)."""
        ...


class Workers(Protocol):
    """Runs functions of a context and other arguments."""

    def submit(self, function: Callable[..., T], *arguments: object) -> Callable[[], T]:
        """Start the work. The result waits for its end; raises Unavailable (BUILD_WORKER_LOST) if the worker was killed."""
        ...
