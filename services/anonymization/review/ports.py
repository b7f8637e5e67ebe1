"""The Protocols of what the review needs. Every method of a store raises Unavailable while the database does not answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from services.anonymization.review.domain import (
    Combination,
    PassageKind,
    PassageMark,
    PassageStretch,
    QueueCounts,
    QueuedPassage,
    RareCombination,
    ReviewedDocument,
    ReviewTerm,
    SampleDraw,
)
from services.anonymization.review.replaced_domain import (
    CountedDocuments,
    OverRedactionCount,
    ReplacedDecision,
    ReplacedString,
)
from services.anonymization.review.sampling import DrawnSample
from tailor.values import Labels

# The types that the policy does not keep in documents with these labels.
TypesOf = Callable[[Labels], tuple[str, ...]]
# The keyed hash of a term in any spelling.
HashTerm = Callable[[str], str]
# The Ed25519 signature of a statement with the service's identity key, and its public key.
Sign = Callable[[bytes], tuple[bytes, bytes]]
# True if that key signed the data.
Verify = Callable[[bytes, bytes], bool]


class ReviewedDocuments(Protocol):
    """The newest version of every document, as a sample sees it."""

    def keep(
        self,
        document: ReviewedDocument,
        terms_digest: str,
        disagreements: Sequence[QueuedPassage],
        combinations: Sequence[Combination],
        surrogates: Mapping[tuple[str, str], int],
    ) -> None:
        """Record a version unless a newer one is known, and queue its disagreements; remove what waits of older ones. Idempotent.

        `surrogates` says how often each (type, surrogate) occurs in it.
        """
        ...

    def all(self) -> Iterator[ReviewedDocument]:
        """Every document without its replaced values, sorted by id. Streams."""
        ...

    def find(self, document_id: str) -> ReviewedDocument | None: ...

    def count_passages(self, sources: Sequence[str]) -> int:
        """The passages of the sources' documents, of all if none is named."""
        ...

    def count_rules_only(self, sources: Sequence[str]) -> dict[str, int]:
        """By language, the sources' documents with passages that were masked by rules only; of all documents if no source is named."""
        ...

    def outdated(self, terms_digest: str) -> Iterator[str]:
        """Ids of the documents that passed under other decisions of reviews. Streams."""
        ...

    def list_rare(self, offset: int, limit: int) -> list[RareCombination]:
        """Rare combinations, rarest first."""
        ...

    def count_rare(self) -> int: ...

    def forget(self, document_id: str) -> int:
        """Remove a document with its passages in the queue, and return their number. Idempotent."""
        ...


class ReviewQueue(Protocol):
    """Samples, the passages that wait, and what was decided."""

    def start_sample(self, sample_id: str, seed: int, drawn: DrawnSample) -> None:
        """Queue a sample in the place of what waits of the last one."""
        ...

    def newest_sample(self) -> SampleDraw | None:
        """The newest sample with its results so far."""
        ...

    def count(self) -> QueueCounts: ...

    def reserve(self, reviewer: str, kind: PassageKind | None) -> QueuedPassage | None:
        """The reviewer's next passage; nobody else gets it for ten minutes. None if nothing waits."""
        ...

    def find(self, passage_id: str) -> QueuedPassage | None:
        """A passage that waits; None if it is unknown or decided."""
        ...

    def is_decided(self, passage_id: str) -> bool: ...

    def decide(self, queued: QueuedPassage, reviewer: str, marks: Sequence[tuple[PassageMark, ReviewTerm]]) -> bool:
        """Record marks and their terms; a newer decision about a term replaces an older one. False if the passage no longer waits."""
        ...

    def skip(self, passage_id: str) -> None:
        """Put a passage at the end of the queue."""
        ...

    def drop(self, passage_id: str) -> None:
        """Remove a passage whose document is gone."""
        ...

    def undo(self, reviewer: str) -> str | None:
        """Take back the reviewer's last decision with the terms that only it recorded, and reserve the passage. None if there is none."""
        ...

    def drop_term(self, term_hash: str) -> bool:
        """Forget a term; False if it is unknown."""
        ...


class ReplacedStrings(Protocol):
    """How often surrogates occur in the newest versions of documents. Strings are named by type and surrogate in small letters."""

    def count_documents(self) -> CountedDocuments: ...

    def find_all(self, min_documents: int, offset: int, limit: int) -> Sequence[ReplacedString]:
        """Strings in at least `min_documents` documents of enough departments or sources, the most replaced first. Reads all counts."""
        ...

    def find_suspects(self, min_documents: int) -> frozenset[tuple[str, str]]:
        """The strings that count as over-redaction: listed ones that are not kept by decision, and those in too few documents."""
        ...

    def find(self, entity_type: str, surrogate: str, min_documents: int) -> ReplacedString | None:
        """One string, if it would be listed."""
        ...

    def spellings(self, entity_type: str, surrogate: str) -> Sequence[str]:
        """The surrogate in all capitals that documents have."""
        ...

    def documents_with(self, entity_type: str, surrogate: str) -> Sequence[str]:
        """Ids of at most ten documents that have the surrogate, of as many departments and sources as possible."""
        ...

    def measure(self, suspects: frozenset[tuple[str, str]], document_ids: Sequence[str]) -> OverRedactionCount:
        """How often any of the strings is replaced in the documents."""
        ...

    def decide(self, entity_type: str, surrogate: str, decision: ReplacedDecision, caller: str) -> None:
        """Record a decision in the place of an earlier one."""
        ...


class QuasiIdentifiers(Protocol):
    """Finds what may single a person out together with other such values: job titles, places, ages, years of birth, nationalities."""

    def __call__(self, text: str, replaced: Sequence[PassageStretch]) -> list[PassageStretch]:
        """The quasi-identifiers of a text, with their types. `replaced` are replaced values, with a type only if they were made coarser."""
        ...
