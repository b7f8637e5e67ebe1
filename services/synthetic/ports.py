"""Interfaces of synthetic to the world around it. Every method of a database raises Unavailable while it does not answer."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.domain import (
    Assignment,
    BuildProgress,
    BuildResult,
    CorpusSnapshot,
    Dataset,
    Document,
    Judgement,
    KeptDraft,
    PairRow,
    Row,
    Sketch,
    SketchPair,
    Specialist,
    Split,
    TeacherAnswer,
)
from services.synthetic.views import RowFilter, StoredDataset, StoredRow
from tailor.datasets import DatasetFile
from tailor.words import DatasetKind, Selection

# All documents that a specialist selects, by its name. Raises Unavailable while the registry does not answer.
ListDocuments = Callable[[str], list[Document]]


class Items(Protocol):
    """Documents and judgements."""

    def keep_document(self, document: Document) -> bool:
        """Keep a version unless the same or a newer one is known; True if it was new."""
        ...

    def keep_judgement(self, judgement: Judgement) -> bool:
        """Keep a judgement; True if it was new."""
        ...

    def document(self, document_id: str) -> Document | None: ...

    def newest(self, specialist: Specialist, limit: int) -> list[Document]:
        """The newest documents that the specialist selects, newest first."""
        ...

    def filled_revision(self, specialist: str) -> int:
        """The specialist's revision for which the registry's documents were read; 0 if they never were."""
        ...

    def set_filled(self, specialist: str, revision: int) -> None:
        """Record that the registry's documents were read."""
        ...


class KeptDrafts(Protocol):
    """Drafts whose texts are stored."""

    def keep_draft(self, draft: KeptDraft) -> None:
        """Keep a draft. A saved draft stays saved, with its text."""
        ...

    def kept_drafts(self, draft_ids: Sequence[str]) -> list[KeptDraft]:
        """Those of the drafts that are kept."""
        ...

    def is_wanted(self, draft_id: str) -> bool:
        """True if a judgement ranks the draft, or a deliverable was made from it."""
        ...

    def forget_drafts(self, days: int) -> None:
        """Drop drafts older than `days` that nobody judged or finished."""
        ...


class Builds(Protocol):
    """Datasets, and everything that decides about the next one."""

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        """Progress over documents for kind sft, or over rankings and deliverables with a draft for kind preference."""
        ...

    def snapshot(self, specialist: Specialist, kind: DatasetKind) -> CorpusSnapshot:
        """A consistent snapshot, sorted by id. Blocks until running changes have ended."""
        ...

    def building(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's build lock; yields False at once if another replica holds it."""
        ...

    def assignments(self, document_ids: Sequence[str]) -> dict[str, Assignment]:
        """The existing assignments."""
        ...

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Keep assignments; existing ones do not change."""
        ...

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        """Record that a build was attempted with everything up to a position."""
        ...

    def finish(self, dataset: Dataset, *, position: int, fingerprint: str) -> bool:
        """Keep a dataset as the specialist's newest of its kind and publish it, in one transaction.

        Returns False, and publishes nothing, if it existed.
        """
        ...

    def answer(self, request_id: str) -> BuildResult | None:
        """The stored answer to a request, if any."""
        ...

    def keep_answer(self, request_id: str, result: BuildResult) -> None:
        """Store the answer to a request."""
        ...


class TeacherAnswers(Protocol):
    """Answers of teachers, so that no teacher is asked twice."""

    def teacher_answer(self, key: str) -> TeacherAnswer | None: ...

    def keep_teacher_answer(self, key: str, answer: TeacherAnswer, document_id: str) -> None:
        """Store an answer about a passage of a document."""
        ...


class Repository(Items, KeptDrafts, Builds, TeacherAnswers, Protocol):
    """Synthetic's whole database. Thread-safe."""


class Holdings(Protocol):
    """Everything that may have to be erased."""

    def forget_document(self, document_id: str) -> int:
        """Drop a document with its sketch, assignment and teacher answers; returns the number of documents dropped."""
        ...

    def datasets(self, specialist: str) -> list[Dataset]:
        """Every dataset of a specialist, or of all specialists if the name is empty."""
        ...

    def specialists(self) -> list[str]:
        """The names of all specialists with a dataset."""
        ...

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of the last builds by kind, without kinds that were never built."""
        ...

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset. If it was the newest, there is no newest one afterwards."""
        ...


class Sketcher(Protocol):
    """Makes sketches and compares them."""

    def sketch(self, document: Document, text: str) -> Sketch: ...

    def is_near_duplicate(self, pair: SketchPair) -> bool: ...


class Sketches(Protocol):
    """Sketches of documents in the database."""

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        """At most `limit` selected documents whose current text has no sketch."""
        ...

    def keep(self, sketches: Sequence[Sketch]) -> None:
        """Keep sketches of documents that still exist."""
        ...

    def counts(self, selection: Selection) -> tuple[int, int]:
        """The number of selected documents, and of those whose current text has a sketch."""
        ...

    def pairs(self, selection: Selection) -> Iterator[SketchPair]:
        """Stream the documents that share a band with an earlier document, each paired with the first document of the band."""
        ...


class NearDuplicates(Protocol):
    """Finds texts that are nearly the same."""

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        """Group the ids, each in exactly one group. Texts of a group are near-duplicates, directly or through others."""
        ...


class Teacher(Protocol):
    """A model that writes rows."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    def ask(self, passage: str) -> TeacherAnswer:
        """Ask for questions about a passage and their answers. Blocks.

        Raises Unavailable while the teacher does not answer, InvalidArgument if it refuses.
        """
        ...


class SplitWriter(Protocol):
    """Stores rows; equal rows give equal bytes."""

    def write(self, rows: Sequence[Row]) -> Split: ...

    def write_pairs(self, rows: Sequence[PairRow]) -> Split: ...


class TokenCounter(Protocol):
    """Counts tokens by one base's tokenizer. Thread-safe."""

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest sequence that the base reads."""
        ...

    @property
    def message_tokens(self) -> int:
        """Upper bound of the tokens that the chat template adds per message."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens."""
        ...


class Tokenizers(Protocol):
    """The tokenizers of bases."""

    def for_base(self, base: str) -> TokenCounter:
        """The base's counter, from memory after the first call. Blocks.

        Raises FailedPrecondition (UNKNOWN_BASE) if the base was never added, Unavailable while the store does not answer.
        """
        ...


class ExtraRows(Protocol):
    """Accepted rows of a specialist that no document's structure gives: those of syntheses and of imports."""

    def rows(self, specialist: Specialist) -> Iterator[Row]:
        """Stream them, sorted by id."""
        ...

    def fingerprint(self, specialist: Specialist) -> str:
        """Changes whenever the rows do."""
        ...


class DatasetFinder(Protocol):
    """The datasets that exist."""

    def newest(self, specialist: str, kind: DatasetKind) -> StoredDataset | None:
        """The specialist's last build of a kind; None if there is none."""
        ...

    def find(self, digest: str) -> list[StoredDataset]:
        """The datasets of a digest: specialists with equal rows share it."""
        ...


class RowFile(Protocol):
    """An open file of rows."""

    @property
    def group_rows(self) -> Sequence[int]:
        """The number of rows of each row group."""
        ...

    def rows(self, group: int, start: int, wanted: RowFilter) -> Iterator[tuple[int, StoredRow]]:
        """Stream a group's rows from number `start` on that have the wanted task and document, each with its number in the group."""
        ...


class RowReader(Protocol):
    """Reads files of rows. Thread-safe."""

    def open(self, file: DatasetFile) -> AbstractContextManager[RowFile]:
        """Open a file of a dataset. Blocks.

        Raises NotFound if it no longer exists, FailedPrecondition (CORRUPT_OBJECT, INVALID_DATASET) if it cannot be read.
        """
        ...
