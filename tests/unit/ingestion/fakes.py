"""In-memory fakes of ingestion's ports."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from services.ingestion.domain import (
    Acceptance,
    DocumentKind,
    File,
    FileReference,
    LaterRejection,
    Outcome,
    ParsedSubmission,
    ParsedText,
    Receipt,
    Rejected,
    Rejection,
    RejectionReason,
    SubmissionRecord,
)
from services.ingestion.formats.read import read
from services.ingestion.handlers import Intake
from services.ingestion.ports import Catalogue, ErasureRequests, Fetcher, Parser, QuarantineWriter
from tailor.errors import Reason, Unavailable
from tailor.storage.ref import Ref

DIGEST_KEY = b"d" * 32


class DirectParser(Parser):
    def parse(self, file: File) -> ParsedText:
        return read(file)


class MemoryFetcher(Fetcher):
    """Files by address. Raises each of the given failures first, one per call."""

    def __init__(self, files: dict[str, File] | None = None, *failures: Exception) -> None:
        self.files = files or {}
        self.failures = list(failures)
        self.calls: list[FileReference] = []

    def fetch(self, reference: FileReference, max_bytes: int) -> File:
        self.calls.append(reference)
        if self.failures:
            raise self.failures.pop(0)
        if reference.uri not in self.files:
            raise Rejected(RejectionReason.NOT_ALLOWED, "It is not allowed.")
        return self.files[reference.uri]


class MemoryErasures(ErasureRequests):
    """Document ids by request id. `down` simulates an unreachable registry."""

    def __init__(self) -> None:
        self.requests: dict[str, str] = {}
        self.down = False

    def request(self, document_id: str, request_id: str) -> None:
        if self.down:
            raise Unavailable(Reason("REGISTRY_UNAVAILABLE"), "registry does not answer.")
        self.requests[request_id] = document_id


class MemoryQuarantine(QuarantineWriter):
    def __init__(self) -> None:
        self.texts: list[tuple[str, int, ParsedText]] = []

    def write(self, document_id: str, sequence: int, parsed: ParsedText) -> Ref:
        self.texts.append((document_id, sequence, parsed))
        return Ref(f"s3://quarantine/documents/{document_id}/{sequence}", "0" * 64, len(parsed.text))


class MemoryCatalogue(Catalogue):
    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.published: list[Outcome] = []
        self.documents: dict[str, tuple[int, str]] = {}
        self.kinds: dict[str, DocumentKind] = {}
        self.receipts: dict[str, Receipt] = {}
        self.later: dict[str, LaterRejection] = {}

    def find(self, key: str) -> Outcome | None:
        return self.outcomes.get(key)

    def republish(self, outcome: Outcome) -> None:
        self.published.append(outcome)

    def reject(self, receipt: Receipt, external_id: str | None, rejection: Rejection) -> Outcome:
        if external_id is not None:
            rejection = replace(rejection, document_id=f"doc_{external_id}")
        return self._store(receipt, rejection)

    def accept(self, submission: ParsedSubmission, store: Callable[[str, int], Ref]) -> Outcome:
        receipt, document_id = submission.receipt, f"doc_{submission.submission.external_id}"
        kind = self.kinds.setdefault(document_id, submission.submission.kind)
        if kind is not submission.submission.kind:
            return self._store(receipt, submission.reject_other_kind(document_id, kind))
        holder = next((name for name, (_, digest) in self.documents.items() if digest == submission.digest), None)
        if holder is not None:
            return self._store(receipt, submission.reject_duplicate(document_id, holder))
        sequence = self.documents.get(document_id, (0, ""))[0] + 1
        self.documents[document_id] = (sequence, submission.digest)
        return self._store(receipt, submission.accept(document_id, sequence, store(document_id, sequence)))

    def resolve(self, external_id: str, kind: DocumentKind) -> str | None:
        document_id = f"doc_{external_id}"
        return document_id if self.kinds.get(document_id) is kind else None

    def release(self, document_id: str, submission_id: str, later: LaterRejection) -> None:
        outcome = next((known for known in self.outcomes.values() if known.submission_id == submission_id), None)
        sequence, _ = self.documents.get(document_id, (0, ""))
        if isinstance(outcome, Acceptance):
            self.later[submission_id] = later
            if outcome.sequence == sequence:
                self.documents[document_id] = (sequence, "")

    def find_submissions(self, external_id: str, limit: int) -> Sequence[SubmissionRecord]:
        records = [
            SubmissionRecord(self.outcomes[key], receipt.publisher, self.later.get(receipt.submission_id))
            for key, receipt in self.receipts.items()
            if receipt.claimed_id == external_id
        ]
        return records[::-1][:limit]

    def _store(self, receipt: Receipt, outcome: Outcome) -> Outcome:
        self.receipts[receipt.key] = receipt
        self.outcomes[receipt.key] = outcome
        self.published.append(outcome)
        return outcome


def make_intake(**changes: Any) -> tuple[Intake, MemoryCatalogue, MemoryQuarantine]:
    catalogue, quarantine = MemoryCatalogue(), MemoryQuarantine()
    intake = Intake(
        parser=DirectParser(),
        quarantine=quarantine,
        catalogue=catalogue,
        digest_key=DIGEST_KEY,
        max_file_bytes=20 * 2**20,
        max_chars=6_000_000,
        fetcher=MemoryFetcher(),
        now_ms=lambda: 1_700_000_000_000,
        sleep=lambda _: None,
    )
    return replace(intake, **changes), catalogue, quarantine


def make_receipt(key: str) -> Receipt:
    return Receipt(key, f"sub_{key}", f"doc_spare_{key}")
