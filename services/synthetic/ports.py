"""Interfaces of synthetic to the world around it. Every method of a database raises Unavailable while it does not answer."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from services.synthetic.corpus import NearDuplicateCount, Sketch, StoredFile
from services.synthetic.domain import (
    BuildProgress,
    BuildResult,
    CleanTexts,
    Dataset,
    Document,
    DocumentPage,
    DrawnPrompt,
    Judgement,
    KeptDraft,
    LastBuild,
    Origin,
    OriginKind,
    OverRedaction,
    PairEvidence,
    RankedEdit,
    Row,
    RowOrigin,
    Specialist,
    SupersededVersion,
    SyncCursor,
    Text,
)
from services.synthetic.views import StoredDataset
from tailor.values import DatasetKind, Labels, Selection

# Pages of the documents that a specialist selects, by its name, and that changed since a cursor; 0 for all. Raises Unavailable while the
# registry does not answer.
ListDocuments = Callable[[str, int], Iterable[DocumentPage]]

# The texts of a row without personal values, anonymised together under the labels' rules, by the row's id (`text_id`). Blocks. Raises
# InvalidArgument if the barrier refuses them, Unavailable while it does not answer.
AnonymizeRow = Callable[[str, Sequence[str], Labels], CleanTexts]

# Raises FailedPrecondition (RESIDUAL_UNKNOWN, RESIDUAL_TOO_HIGH) if the installation limits what the barrier may leave and the selected
# documents do not meet it, Unavailable while the barrier does not answer. Blocks.
CheckResidual = Callable[[Selection], None]

# What the barrier replaced too much in documents, whose ids come in batches of at most 1,000. Not known while it does not
# answer. Blocks.
MeasureOverRedaction = Callable[[Iterable[Sequence[str]]], OverRedaction]

# Pages of the ids of documents with a missed or contradicted closed-book question in the last evaluation, by the specialist's name. Raises
# Unavailable while the registry does not answer.
ListMissed = Callable[[str], Iterable[Sequence[str]]]

# The drawn prompts of a specialist that wait for experts, and the number from which on none may be drawn. Raises Unavailable while the
# registry does not answer.
CountWaiting = Callable[[str], tuple[int, int]]

# Has a specialist, by its name, answer a drawn prompt; returns the draft's id. Blocks. Raises InvalidArgument for a prompt that it cannot
# answer, FailedPrecondition (NO_ADAPTER, PROMPTS_NOT_DRAWN), Unavailable while inference does not answer.
AnswerPrompt = Callable[[str, DrawnPrompt], str]


class Items(Protocol):
    """Documents and judgements."""

    def keep_document(self, document: Document) -> bool:
        """Keep a version unless the same or a newer one is known; True if it was new."""
        ...

    def unknown_documents(self, documents: Sequence[Document]) -> list[Document]:
        """Those of which neither this version nor a newer one is known."""
        ...

    def keep_judgement(self, judgement: Judgement) -> bool:
        """Keep a judgement; True if it was new."""
        ...

    def retract_judgement(self, judgement: Judgement) -> None:
        """Replace a judgement by this one, which has no ranking, and drop the revision that its comment asked for.

        A later `keep_judgement` of its id has no effect.
        """
        ...

    def newest_position(self) -> int:
        """The position of the newest document or judgement of all; takes the same time however many there are."""
        ...

    def document(self, document_id: str) -> Document | None: ...

    def draw_documents(self, specialist: Specialist, limit: int, *, new_only: bool = False) -> list[Document]:
        """Documents that the specialist selects and may train on, drawn by a fixed hash. `new_only`: since its last build."""
        ...

    def sync_cursor(self, specialist: str) -> SyncCursor:
        """How far the registry's documents were read for the specialist."""
        ...

    def set_sync_cursor(self, specialist: str, synced: SyncCursor) -> None:
        """Record how far they were read."""
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
        """True if a judgement is about the draft, or a deliverable was made from it."""
        ...

    def forget_drafts(self, days: int) -> None:
        """Drop drafts older than `days` that nobody judged or finished."""
        ...


class DrawnPrompts(Protocol):
    """What was drawn for the experts of each specialist."""

    def drawing(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's drawing lock without a transaction; yields False at once if another thread or replica holds it."""
        ...

    def count(self, specialist: str) -> int: ...
    def find_drawn(self, specialist: str, digests: Sequence[str]) -> set[str]:
        """Those of the prompts' digests that were drawn."""
        ...

    def count_documents(self, specialist: str, document_ids: Sequence[str]) -> dict[str, int]:
        """How often each document was drawn from; without those that never were."""
        ...

    def count_tasks(self, specialist: str) -> dict[str, int]:
        """How often prompts of each task were drawn."""
        ...

    def keep(self, specialist: str, prompt: DrawnPrompt) -> None:
        """Remember that a prompt was drawn. Idempotent."""
        ...


class EditedDrafts(Protocol):
    """Drafts that experts edited."""

    def ranked_edits(self, specialist: Specialist) -> list[RankedEdit]:
        """The specialist's edited drafts that a judgement ranks first, before what was edited, by id.

        Those whose draft became a selected deliverable are left out.
        """
        ...


class Builds(Protocol):
    """Datasets, and everything that decides about the next one."""

    def progress(self, specialist: Specialist, kind: DatasetKind) -> BuildProgress:
        """Progress over documents for kind sft, or over rankings and deliverables with a draft for kind preference.

        `new_items` is counted up to the policy's `min_new_items` only, so that it takes the same time however many documents there are.
        """
        ...

    def last_build(self, specialist: str, kind: DatasetKind) -> LastBuild:
        """The last build. Waits for running changes, so that no item appears later at a position that was already read."""
        ...

    def building(self, specialist: str) -> AbstractContextManager[bool]:
        """Hold the specialist's build lock without a transaction; yields False at once if another replica holds it."""
        ...

    def mark_tried(self, specialist: str, kind: DatasetKind, position: int) -> None:
        """Record that a build was attempted with everything up to a position."""
        ...

    def finish(self, dataset: Dataset, files: Sequence[StoredFile], *, position: int, fingerprint: str) -> bool:
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


class PairSources(Protocol):
    """What preference datasets are made from."""

    def pair_evidence(self, specialist: Specialist) -> PairEvidence:
        """Judgements, saved drafts, deliverables and accepted revisions of drafts, each sorted by id."""
        ...

    def sides(self, specialist: str, document_ids: Sequence[str]) -> dict[str, bool]:
        """True for each document that the specialist holds out, False if it trains; without those that have no assignment."""
        ...


class Origins(Protocol):
    """Where a specialist's documents come from, and who admitted it. Thread-safe."""

    def admit_first(self, specialist: Specialist) -> None:
        """Admit all sources that a specialist selects now, if it has no dataset of documents yet. Examples and golden documents wait."""
        ...

    def list(self, specialist: Specialist) -> list[Origin]:
        """The origins of all selected documents, those that nobody admitted first."""
        ...

    def admit(self, specialist: Specialist, kind: OriginKind, name: str, admitted_by: str) -> bool:
        """Let documents of an origin give rows, and count as new. Idempotent. False if no selected document comes from it."""
        ...


class Repository(Items, KeptDrafts, Builds, PairSources, Protocol):
    """Synthetic's whole database. Thread-safe."""


class HeldDocuments(Protocol):
    """Documents and drafts that may have to be erased."""

    def segment_of(self, document_id: str) -> int | None:
        """The document's segment; None if it was never prepared, or is erased."""
        ...

    def forget_document(self, document_id: str) -> tuple[int, list[str]]:
        """Drop a document with its sketch, assignments and the stored rows of its segment.

        Returns the number of documents dropped, and the keys of files that no dataset has.
        """
        ...

    def held_versions(self, document_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Sequence and digest of the version that is held, by document; without documents that are not."""
        ...

    def forget_derived(self, document_id: str) -> list[str]:
        """Drop the stored rows of a document's segment, and what a teacher wrote from it; the document stays.

        Returns the keys of files that no dataset has.
        """
        ...

    def forget_drafts(self, adapters: Sequence[str], text_id: str = "") -> tuple[int, list[str]]:
        """Drop the drafts of adapters with their revisions, and the edited one with this text id.

        Returns their number, and the keys of saved texts that no other draft has.
        """
        ...

    def forget_drawn(self, document_id: str) -> tuple[int, list[str]]:
        """Drop the drafts whose prompts were drawn from a document, and what was drawn from it.

        Returns the number of drafts and the SHA-256 of their texts.
        """
        ...


class HeldDatasets(Protocol):
    """Datasets that may have to be erased."""

    def datasets(self, specialist: str) -> list[Dataset]:
        """Every dataset of a specialist."""
        ...

    def dataset(self, specialist: str, digest: str) -> Dataset | None: ...

    def source_files(self, specialist: str, segments: Collection[int] | None) -> list[tuple[str, str]]:
        """(dataset, key) of the specialist's sources files that may name a document of the segments; None for any segment."""
        ...

    def specialists(self) -> list[str]:
        """The names of all specialists with a dataset."""
        ...

    def newest_digests(self, specialist: str) -> dict[DatasetKind, str]:
        """The digests of the last builds by kind, without kinds that were never built."""
        ...

    def unshared_files(self, digests: Sequence[str]) -> list[str]:
        """Keys of the datasets' files that no other dataset and no stored segment has."""
        ...

    def drop_dataset(self, dataset: Dataset) -> None:
        """Drop a dataset. If it was the newest, there is no newest one afterwards."""
        ...


class Holdings(HeldDocuments, HeldDatasets, Protocol):
    """Everything that may have to be erased."""


class SupersededVersions(Protocol):
    """Versions of documents whose datasets are to be superseded."""

    def keep_superseded(self, version: SupersededVersion) -> None:
        """Remember a version whose datasets are to be superseded. A known one stays as it is."""
        ...

    def superseded(self, limit: int) -> list[SupersededVersion]:
        """The remembered versions, oldest first."""
        ...

    def superseded_ages(self) -> tuple[float, float] | None:
        """The seconds since the oldest and since the newest remembered version became known; None if there is none."""
        ...

    def drop_superseded(self, versions: Sequence[SupersededVersion]) -> None:
        """Forget remembered versions."""
        ...

    def superseding(self) -> AbstractContextManager[bool]:
        """Hold the lock of the thread that supersedes datasets; yields False at once if another replica holds it."""
        ...


class Sketcher(Protocol):
    """Makes sketches."""

    def sketch(self, document: Document, text: Text) -> Sketch: ...


class Sketches(Protocol):
    """Sketches of documents in the database."""

    def preparing(self) -> AbstractContextManager[bool]:
        """Hold the lock of the thread that prepares documents; yields False at once if another thread or replica holds it."""
        ...

    def missing(self, selection: Selection, limit: int) -> list[Document]:
        """At most `limit` selected documents whose current text has no sketch, oldest first."""
        ...

    def retry_unreadable(self, selection: Selection) -> None:
        """Let the selected documents be prepared again whose text could not be read."""
        ...

    def keep(self, sketches: Sequence[Sketch]) -> None:
        """Keep sketches of texts that are still current, and join them to their clusters, in one transaction. Needs the lock."""
        ...

    def count(self, selection: Selection) -> NearDuplicateCount:
        """Count the selected documents and the near-duplicates among those with a sketch."""
        ...


class TokenCounter(Protocol):
    """Counts tokens by one base's tokenizer. Thread-safe; can be pickled."""

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest sequence that the base reads."""
        ...

    def template_tokens(self, contents: Sequence[str], *, has_system: bool) -> int:
        """The tokens that the chat template adds to a conversation with these messages of user and assistant in turn, and a system prompt.

        An upper bound if the template treats messages differently by their place, and for contents that begin or end with blanks.
        """
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens."""
        ...

    def can_encode(self, messages: Sequence[tuple[str, str]]) -> bool:
        """True if training can encode a conversation of (role, content), as `tailor.chat.encode` does."""
        ...


class Tokenizers(Protocol):
    """The tokenizers of bases."""

    def for_base(self, base: str) -> TokenCounter:
        """The base's counter, from memory after the first call. Blocks.

        Raises FailedPrecondition (UNKNOWN_BASE) if the base was never added, Unavailable while the store does not answer.
        """
        ...


class ExtraRows(Protocol):
    """Accepted rows of a specialist that no document's structure gives: those of syntheses, of imports and of edited drafts."""

    def rows(self, specialist: Specialist, on_unreadable: Callable[[int], None] = lambda rows: None) -> Iterator[Row]:
        """Stream them, sorted by id. Calls `on_unreadable` with the number of rows that a damaged object had."""
        ...

    def fingerprint(self, specialist: Specialist) -> str:
        """Changes whenever the rows do."""
        ...

    def origin(self, specialist: Specialist) -> RowOrigin:
        """The imports and drafts that the rows may come from, and what they cost."""
        ...


class DatasetFinder(Protocol):
    """The datasets that exist."""

    def newest(self, specialist: str, kind: DatasetKind) -> StoredDataset | None:
        """The specialist's last build of a kind; None if there is none."""
        ...

    def find(self, digest: str) -> list[StoredDataset]:
        """The datasets of a digest: specialists with equal rows share it."""
        ...

    def files_of(self, dataset: StoredDataset, document_id: str) -> frozenset[str]:
        """Keys of the dataset's files that may have rows of the document: that of its segment, and those without one."""
        ...
