"""The Protocols of what ingestion needs from outside: adapters implement them, tests fake them."""

from collections.abc import Callable, Sequence
from typing import Protocol

from services.ingestion.domain import (
    DocumentKind,
    File,
    FileReference,
    LaterRejection,
    Outcome,
    ParsedSubmission,
    ParsedText,
    Receipt,
    Rejection,
    SubmissionRecord,
)
from tailor.storage.ref import Ref


class Parser(Protocol):
    """Turns a file into clean text."""

    def parse(self, file: File) -> ParsedText:
        """Parse a file. Raises Rejected. Blocks, at most for its time limit."""
        ...


class Fetcher(Protocol):
    """Gets files from the places where their publishers store them."""

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        """Fetch a file. Blocks, at most for its time limit.

        Raises Rejected if the file is forbidden, missing or too large, and Unavailable if a later attempt may succeed.
        """
        ...


class ErasureRequests(Protocol):
    """Has documents erased by every service."""

    def request(self, document_id: str, request_id: str) -> None:
        """Request an erasure. Idempotent for the same request id. May block; raises Unavailable without the registry."""
        ...


class QuarantineWriter(Protocol):
    """Stores encrypted text until anonymization has read it."""

    def write(self, document_id: str, sequence: int, parsed: ParsedText) -> Ref:
        """Encrypt and store a text. Writing the same version again overwrites the same object."""
        ...


class Catalogue(Protocol):
    """Documents, versions and the outcome of every submission. Stores and publishes each outcome in one transaction, once."""

    def find(self, key: str) -> Outcome | None:
        """The stored outcome of a submission."""
        ...

    def republish(self, outcome: Outcome) -> None:
        """Publish a stored outcome again, with the same event id."""
        ...

    def reject(self, receipt: Receipt, external_id: str | None, rejection: Rejection) -> Outcome:
        """Store and publish a rejection, under the document's id if `external_id` is known.

        Returns the outcome that another replica stored first, if one did.
        """
        ...

    def accept(self, submission: ParsedSubmission, store: Callable[[str, int], Ref]) -> Outcome:
        """Create a version, or reject the submission if its document is erased or of another kind, or its digest is current.

        Calls `store(document_id, sequence)` at most once. Returns the outcome that another replica stored first, if one did.
        """
        ...

    def resolve(self, external_id: str, kind: DocumentKind) -> str | None:
        """The id of the document that its publisher calls `external_id`; None if it is of another kind."""
        ...

    def release(self, document_id: str, submission_id: str, later: LaterRejection) -> None:
        """Store why a version went no further, and allow its text to be published again.

        Has no effect if the submission created no version. If a newer version exists, that one's text stays current.
        """
        ...

    def find_submissions(self, external_id: str, limit: int) -> Sequence[SubmissionRecord]:
        """The submissions under a publisher's id, also malformed ones whose id could be read; the newest first."""
        ...
