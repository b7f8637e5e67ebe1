"""The Protocols of everything that anonymization needs from outside. Adapters and inner packages implement them, tests fake them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from services.anonymization.domain import (
    NO_LABELS,
    Anonymized,
    AnonymizedPrompt,
    DocumentOutcome,
    DocumentText,
    Finding,
    Ingested,
    InstalledPolicy,
    Resolved,
    TrueValue,
)
from tailor.storage.ref import Ref
from tailor.values import Labels


class Issuer(Protocol):
    """Gives a value its surrogate. Both are unique within a type."""

    def issue(self, entity_type: str, key: str, value: str, propose: Callable[[int], str]) -> str:
        """The value's surrogate, drawn when the value is first seen.

        `key` is the value's normal form; `propose(n)` draws the n-th candidate. Raises ResourceExhausted (NO_SURROGATE_LEFT).
        """
        ...


class Revealer(Protocol):
    """Knows true values. Only re-identification has access to it."""

    def reveal(self, entity_type: str, surrogate: str) -> str | None:
        """The true value, or None if no such surrogate was issued."""
        ...


class Anonymizer(Protocol):
    """Replaces personal values under the installation's policy."""

    def anonymize(self, texts: tuple[str, ...], labels: Labels = NO_LABELS, passed: tuple[str, ...] = ()) -> Anonymized:
        """Anonymise texts that belong together: a value found in one is replaced in all. The labels choose the policy's rules.

        A value that stands word for word in the texts that `passed` before stays as it is.
        """
        ...


class PromptAnonymizer(Protocol):
    """Replaces the personal values of a prompt by surrogates that exist only for that prompt."""

    def anonymize(self, texts: tuple[str, ...], labels: Labels, beside: tuple[str, ...]) -> AnonymizedPrompt:
        """Anonymise texts that belong together; store nothing.

        The texts in `beside` are context: they are not changed, and no surrogate repeats one of their words.
        """
        ...


class Previewer(Protocol):
    """Shows what a policy does, and stores nothing."""

    def preview(self, text: str, policy: str, labels: Labels) -> Anonymized:
        """Show what the text would become under a policy in TOML; if `policy` is empty, under the installation's.

        Raises InvalidArgument (INVALID_POLICY) with a violation for every wrong field.
        """
        ...


class AuditLog(Protocol):
    """Records who asked for true values and for people."""

    def record(self, caller: str, entity_type: str, surrogate: str, purpose: str) -> None:
        """Record one call; called before the answer is given."""
        ...

    def has(self, caller: str, entity_type: str, surrogate: str, purpose: str, seconds: float) -> bool:
        """True if such a call was recorded within the last seconds."""
        ...


class QuarantinedTexts(Protocol):
    """The encrypted texts that ingestion left in quarantine."""

    def read(self, ingested: Ingested) -> DocumentText:
        """The text. Raises FailedPrecondition or InvalidArgument if it does not verify, NotFound if it no longer exists."""
        ...

    def delete(self, ref: Ref) -> None:
        """Remove an object. Idempotent."""
        ...

    def delete_all(self, document_id: str) -> int:
        """Remove every object of a document and return their number."""
        ...


class Corpus(Protocol):
    """The anonymised texts."""

    def write(self, text: DocumentText) -> Ref:
        """Store a text under the digest of its bytes."""
        ...

    def read(self, ref: Ref) -> DocumentText:
        """A stored text. Raises NotFound if it no longer exists."""
        ...

    def delete(self, ref: Ref) -> None:
        """Remove a text. Idempotent."""
        ...


class Subjects(Protocol):
    """Which documents, and rows that come from none, contain which surrogates, and which values are suppressed."""

    def keep(self, document_id: str, values: frozenset[tuple[str, str]]) -> None:
        """Record the (type, surrogate) pairs that a document contains."""
        ...

    def forget(self, document_id: str) -> int:
        """Remove a document's pairs, destroy the vault entries that no other document needs, and return their number."""
        ...

    def resolve(self, subject: str, *, dry_run: bool) -> Resolved:
        """The documents of a name, mail address or phone number. Unless `dry_run`, suppress it and destroy its vault entries.

        Raises InvalidArgument (INVALID_SUBJECT) if the subject names nobody.
        """
        ...

    def describe(self, subject: str) -> tuple[str, Resolved, bool]:
        """The type of a subject, its documents and vault entries, and whether it is suppressed.

        Raises InvalidArgument (INVALID_SUBJECT).
        """
        ...

    def lift(self, subject: str) -> bool:
        """End a suppression; False if there was none. Raises InvalidArgument (INVALID_SUBJECT) if the subject names nobody."""
        ...


class ReviewedTerms(Protocol):
    """What people decided in reviews about texts, for all documents that pass from then on. Thread-safe."""

    @property
    def digest(self) -> str:
        """The SHA-256 of all decisions; empty if there are none. It changes with every new one."""
        ...

    def search(self, text: str) -> tuple[list[Finding], list[tuple[int, int]]]:
        """The terms that are always personal, wherever the text has them, and the [start, end) stretches that never are."""
        ...


class ReviewRecorder(Protocol):
    """Records what a review needs of every document: how many passages it has, and where values were replaced. No text."""

    def record(self, ingested: Ingested, clean: DocumentText, result: Anonymized, language: str) -> None:
        """Record a version that passed; older ones are no longer sampled. Idempotent."""
        ...

    def forget(self, document_id: str) -> int:
        """Remove a document's passages, marks and combinations, and return the number of passages that were in the queue."""
        ...


class TrueValues(Protocol):
    """Finds true values in texts by keyed hash, without decrypting or storing any."""

    def find(self, texts: Sequence[str]) -> frozenset[TrueValue]:
        """The true values in the texts that the vault has."""
        ...

    def occurring(self, values: frozenset[TrueValue], document_ids: Sequence[str]) -> frozenset[TrueValue]:
        """Those of the values that occur in any of the documents, without values that are also a surrogate in them."""
        ...


class PolicyAnnouncer(Protocol):
    """Publishes what is in force."""

    def announce(self, installed: InstalledPolicy) -> None:
        """Send the event and block until the broker has it. The same policy always gives the same event."""
        ...


class OutcomePublisher(Protocol):
    """Publishes what became of documents."""

    def publish(self, outcome: DocumentOutcome) -> None:
        """Send the event and block until the broker has it. The same outcome always gives the same event."""
        ...
