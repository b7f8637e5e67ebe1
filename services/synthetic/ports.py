"""What synthetic needs from outside."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.domain import (
    Assignment,
    Built,
    Dataset,
    DatasetKind,
    Document,
    Judgement,
    KeptDraft,
    Lesson,
    Progress,
    Row,
    Snapshot,
    Specialist,
    Split,
)
from services.synthetic.judging import PairRow


class Repository(Protocol):
    """Synthetic's own database. Every method raises Unavailable while it does not answer."""

    def keep_document(self, document: Document) -> bool:
        """Keep a version unless the same or a newer one is known; True if it was new."""
        ...

    def keep_judgement(self, judgement: Judgement) -> bool:
        """Keep a judgement once; True if it was new."""
        ...

    def keep_draft(self, draft: KeptDraft) -> None:
        """Keep a draft; one that is saved stays saved, with the text that it has."""
        ...

    def kept_drafts(self, draft_ids: Sequence[str]) -> list[KeptDraft]:
        """Those of the drafts that are kept."""
        ...

    def is_wanted(self, draft_id: str) -> bool:
        """True if a judgement ranks the draft, or a deliverable was made out of it."""
        ...

    def forget_drafts(self, days: int) -> None:
        """Drop the drafts that nobody judged or finished for so many days."""
        ...

    def filled_revision(self, specialist: str) -> int:
        """The revision up to which the registry's documents were read; 0 before."""
        ...

    def set_filled(self, specialist: str, revision: int) -> None:
        """Remember that the registry's documents were read."""
        ...

    def progress(self, specialist: Specialist, kind: DatasetKind) -> Progress:
        """What the rebuild policy looks at: documents, or else rankings and deliverables that name their draft."""
        ...

    def snapshot(self, specialist: Specialist, kind: DatasetKind) -> Snapshot:
        """Documents and judgements by id, with nothing in flight."""
        ...

    def document(self, document_id: str) -> Document | None:
        """One document."""
        ...

    def newest(self, specialist: Specialist, limit: int) -> list[Document]:
        """The newest selected documents."""
        ...

    def building(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the right to build; False at once where another replica holds it."""
        ...

    def assignments(self, document_ids: Sequence[str]) -> dict[str, Assignment]:
        """The known assignments."""
        ...

    def assign(self, assignments: Iterable[Assignment]) -> None:
        """Keep assignments; one that exists stays as it is."""
        ...

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        """Remember that a build was tried with everything up to a position."""
        ...

    def finish(self, dataset: Dataset, *, position: int, fingerprint: str) -> bool:
        """Keep a dataset as the specialist's newest of its kind and state it, in one transaction; False, and nothing stated, where it
        existed."""
        ...

    def answer(self, request_id: str) -> Built | None:
        """What a command with this id was answered; InvalidArgument never, None where it is new."""
        ...

    def keep_answer(self, request_id: str, built: Built) -> None:
        """Remember the answer to a command."""
        ...

    def lesson(self, key: str) -> Lesson | None:
        """What a teacher made of a passage before."""
        ...

    def keep_lesson(self, key: str, lesson: Lesson, document_id: str) -> None:
        """Remember what a teacher made, and of which document."""
        ...


class NearDuplicates(Protocol):
    """Finds texts that are nearly the same."""

    def groups(self, texts: Mapping[str, str]) -> list[frozenset[str]]:
        """Every id in exactly one group; texts of a group are near-duplicates of each other, directly or through others."""
        ...


class Teacher(Protocol):
    """A model that makes rows."""

    @property
    def model(self) -> str:
        """Its name."""
        ...

    def teach(self, passage: str) -> Lesson:
        """Questions about a passage and their answers; Unavailable while it does not answer, InvalidArgument where what it says
        is no lesson."""
        ...


class SplitWriter(Protocol):
    """Writes rows."""

    def write(self, rows: Sequence[Row]) -> Split:
        """Store rows; the same rows give the same bytes."""
        ...

    def write_pairs(self, rows: Sequence[PairRow]) -> Split:
        """Store preference rows, likewise."""
        ...
